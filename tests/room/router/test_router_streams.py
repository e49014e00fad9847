"""An answer on its way from a provider to the caller."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_reason
from tests.support.router_room import cloud

TOOL = '{"type":"function","function":{"name":"forecast","parameters":{"limit":12345678901234567890, "b":1.0}}}'


async def test_an_answer_is_a_route_deltas_and_one_end(room):
    told = await room.answer()
    assert (told.route.deployment, told.route.provider, told.route.provider_model) == ("cheap", "cheap", "cheap-model")
    assert told.text == room.cheap.script.reply
    assert told.finished.finish_reason == chat_pb2.FINISH_REASON_STOP
    assert told.finished.provider_time.ToMicroseconds() > 0


async def test_the_providers_figures_fall_into_disjoint_buckets(room):
    room.cheap.set(cached_tokens=3)
    usage = (await room.answer()).finished.usage
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (1, 3, 9)
    assert not usage.estimated


async def test_missing_figures_are_estimated_and_say_so(room):
    room.cheap.set(omit_usage=True)
    usage = (await room.answer()).finished.usage
    assert usage.estimated
    assert usage.input_tokens > 0
    assert usage.output_tokens == 11


async def test_the_credential_goes_to_the_provider(room):
    await room.answer()
    assert room.cheap.requests[-1].headers["authorization"] == "Bearer sk-scripted"


async def test_json_of_the_caller_reaches_the_provider_byte_for_byte(room):
    options = chat_pb2.GenerationOptions(
        tools_json=[TOOL], response_format_json='{"type": "json_object"}', extra_json={"top_k": "40.00"}
    )
    await room.answer(options=options)
    body = room.cheap.requests[-1].body
    assert TOOL.encode() in body
    assert b'"response_format":{"type": "json_object"}' in body
    assert b'"top_k":40.00' in body


async def test_tool_calls_are_streamed(room):
    room.cheap.set(tokens_per_second=200)
    told = await room.answer(options=chat_pb2.GenerationOptions(tools_json=[TOOL]))
    pieces = [call for delta in told.deltas for call in delta.tool_calls]
    assert [piece.name for piece in pieces if piece.id] == ["forecast"]
    assert orjson.loads("".join(piece.arguments for piece in pieces)) == {"city": "Paris", "days": 3}
    assert told.finished.finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS


async def test_the_first_token_does_not_wait_for_others_and_quick_ones_share_a_message(room):
    room.cheap.set(reply_tokens=40, tokens_per_second=400)
    told = await room.answer()
    assert told.deltas[0].text.startswith("The")
    assert 2 <= len(told.deltas) < 20


async def test_the_end_of_an_answer_ends_the_wait_for_more_of_it(make_room):
    async with make_room(coalesce_seconds=1) as room:
        room.cheap.set(tokens_per_second=50)
        told = await room.answer()
        assert [delta.text for delta in told.deltas] == ["The", told.text.removeprefix("The")]
        assert told.finished.provider_time.ToMilliseconds() < 900


async def test_a_token_is_not_held_back_for_a_slow_successor(room):
    room.cheap.set(stall_after_chunks=1)
    call = room.stub.StreamGenerateChat(room.request(), timeout=20)
    assert (await call.read()).route.first.text == "The"
    call.cancel()


async def test_connections_are_kept_for_the_next_request(room):
    for _ in range(4):
        await room.answer()
    assert room.cheap.counters.connections == 1


async def test_hanging_up_closes_the_providers_connection_at_once(room):
    room.cheap.set(stall_after_chunks=2)
    call = room.stub.StreamGenerateChat(room.request(), timeout=20)
    await call.read()
    call.cancel()
    await room.cheap.until(lambda now: now.aborted_streams == 1 and now.open_connections == 0)


async def test_hanging_up_before_the_first_token_closes_the_connection_too(room):
    room.cheap.set(stall_after_chunks=0)
    call = room.stub.StreamGenerateChat(room.request(), timeout=20)
    waiting = asyncio.ensure_future(call.read())
    await room.cheap.until(lambda now: now.open_streams == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await room.cheap.until(lambda now: now.aborted_streams == 1)
    assert room.dear.counters.requests == 0


VERBATIM = {
    "characters cut in half": ('data: {"choices":[{"delta":{"content":"привет 🦊"}}]}\n\ndata: [DONE]\n\n', 1),
    "comments and names": (
        ': hello\n\nevent: x\nid: 1\ndata: {"choices":[{"delta":{"content":"привет 🦊"}}]}\n\n'
        ": ping\n\ndata: [DONE]\n\n",
        0,
    ),
    "CRLF": ('data: {"choices":[{"delta":{"content":"привет 🦊"}}]}\r\n\r\ndata: [DONE]\r\n\r\n', 3),
    "no DONE but a finish_reason": (
        'data: {"choices":[{"delta":{"content":"привет 🦊"},"finish_reason":"stop"}]}\n\n',
        0,
    ),
    "no last blank line": ('data: {"choices":[{"delta":{"content":"привет 🦊"}}]}\n\ndata: [DONE]', 0),
    "garbage after the end": (
        'data: {"choices":[{"delta":{"content":"привет 🦊"},"finish_reason":"stop"}]}\n\ndata: {"usa\n\n',
        0,
    ),
}


@pytest.mark.parametrize("name", VERBATIM)
async def test_a_stream_with_quirks_is_understood(room, name):
    body, piece_bytes = VERBATIM[name]
    room.cheap.set(verbatim=body, verbatim_bytes=piece_bytes)
    told = await room.answer()
    assert (told.text, told.finished.finish_reason) == ("привет 🦊", chat_pb2.FINISH_REASON_STOP)
    assert told.route.deployment == "cheap"


async def test_reasoning_is_told_apart_from_the_answer(room):
    room.cheap.set(
        verbatim='data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n'
        'data: {"choices":[{"delta":{"content":"yes"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    told = await room.answer()
    assert ("".join(delta.reasoning for delta in told.deltas), told.text) == ("hm", "yes")


async def test_an_empty_answer_is_an_answer(room):
    room.cheap.set(verbatim='data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n')
    told = await room.answer()
    assert told.deltas == []
    assert told.finished.finish_reason == chat_pb2.FINISH_REASON_LENGTH


@pytest.mark.parametrize(
    "disturbance",
    [{"cut_after_chunks": 3}, {"stall_after_chunks": 3}, {"malformed_chunk": 3}, {"error_chunk": 3}],
    ids=lambda knobs: next(iter(knobs)),
)
async def test_a_break_after_the_first_token_is_told_and_nobody_else_is_asked(make_room, disturbance):
    limits = {"idle_chunk_seconds": 0.2}
    async with make_room(lambda cheap, dear: [cloud("cheap", cheap, timeouts=limits), cloud("dear", dear)]) as room:
        room.cheap.set(**disturbance)
        told, error = await room.broken()
        assert error_reason(error) == "PROVIDER_STREAM_BROKEN"
        assert told.text == "The quick brown"
        assert room.dear.counters.requests == 0
        await room.cheap.until(lambda now: now.open_streams == 0)


async def test_an_answer_is_whole_once_its_end_was_said_even_if_figures_never_come(make_room):
    limits = {"idle_chunk_seconds": 0.4}
    async with make_room(lambda cheap, _: [cloud("cheap", cheap, timeouts=limits)]) as room:
        room.cheap.set(
            verbatim='data: {"choices":[{"delta":{"content":"whole"},"finish_reason":"stop"}]}\n\n',
            stall_after_chunks=0,
        )
        told = await room.answer()
        assert (told.text, told.finished.usage.estimated) == ("whole", True)
