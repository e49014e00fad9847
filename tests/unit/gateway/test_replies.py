"""What an OpenAI client reads: objects and event streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from meshkit.errors import ProviderStreamBroken
from meshkit.server import Last
from services.gateway.exchange import Event, Finished, Report, Route
from services.gateway.headers import closing_headers, money, opening_headers
from services.gateway.openai.chat_reply import ChatReply
from services.gateway.openai.delivery import streamed, whole
from services.gateway.openai.short_reply import ShortReply
from services.gateway.replay import collected

MISS, EXACT = gateway_pb2.CACHE_STATUS_MISS, gateway_pb2.CACHE_STATUS_EXACT
USAGE = chat_pb2.TokenUsage(input_tokens=8, cached_input_tokens=2, output_tokens=5, reasoning_tokens=3)
REPORT = Report("r1", "local", "local/m", MISS, 1_234, "RUB", 0.0021)
ROUTE = Route("r1", "local", "local/m", MISS, 0.0021)
CALL = chat_pb2.ToolCallDelta(index=0, id="c1", name="f", arguments='{"a":1}')


class Wire:
    """What reaches the client: the headers, then the bodies."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.bodies: list[bytes] = []
        self.types: list[str] = []

    async def send_initial_metadata(self, headers: Any) -> None:
        assert not self.bodies, "headers come before the first body"
        self.headers = dict(headers)

    async def take(self, bodies: Any) -> Wire:
        ended = False
        async for body in bodies:
            assert not ended, "nothing follows the last"
            ended = isinstance(body, Last)
            self._take(body.message if isinstance(body, Last) else body)
        assert ended
        return self

    def _take(self, body: Any) -> None:
        self.bodies.append(body.data)
        self.types.append(body.content_type)

    @property
    def events(self) -> list[Any]:
        lines = b"".join(self.bodies).decode().split("\n\n")
        assert lines.pop() == ""
        return [orjson.loads(line[6:]) if line != "data: [DONE]" else line for line in lines]


async def told(*events: Event, error: Exception | None = None) -> AsyncIterator[Event]:
    for event in events:
        yield event
    if error:
        raise error


def finished(reason: Any = chat_pb2.FINISH_REASON_STOP, report: Report = REPORT) -> Finished:
    return Finished(reason, USAGE, report)


def said(text: str = "", **more: Any) -> chat_pb2.Delta:
    return chat_pb2.Delta(text=text, **more)


async def stream(*events: Event, include_usage: bool = False, error: Exception | None = None) -> Wire:
    wire = Wire()
    reply = ChatReply("r1", "m", include_usage=include_usage)
    return await wire.take(streamed(told(*events, error=error), reply, wire))


async def test_a_whole_answer_has_openais_shape() -> None:
    wire = Wire()
    await wire.take(whole(told(ROUTE, said("The "), said("fox."), finished()), ChatReply("r1", "m"), wire))
    answer = orjson.loads(wire.bodies[0])
    assert wire.types == ["application/json"]
    assert (answer["id"], answer["object"], answer["model"]) == ("chatcmpl-r1", "chat.completion", "m")
    assert isinstance(answer["created"], int)
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The fox.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 8,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert wire.headers == {
        "x-request-id": "r1",
        "x-llmmesh-provider": "local",
        "x-llmmesh-overhead-ms": "2.10",
        "x-llmmesh-cache": "miss",
        "x-llmmesh-cost": "0.001234 RUB",
    }


async def test_a_stream_begins_with_the_role_and_ends_with_the_mark() -> None:
    wire = await stream(ROUTE, said("The "), said("fox."), finished())
    role, first, second, last, done = wire.events
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [event["choices"][0]["delta"] for event in (first, second)] == [{"content": "The "}, {"content": "fox."}]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert done == "data: [DONE]"
    assert {event["object"] for event in wire.events[:-1]} == {"chat.completion.chunk"}
    assert "usage" not in first
    assert last["llmmesh"]["cost"] == 0.001234
    assert wire.types[0] == "text/event-stream"
    assert "x-llmmesh-cost" not in wire.headers


async def test_usage_is_the_last_event_before_the_mark_when_asked_for() -> None:
    *chunks, usage, done = (await stream(ROUTE, said("x"), finished(), include_usage=True)).events
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 18, "data: [DONE]")
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["llmmesh"] == {
        "request_id": "r1",
        "provider": "local",
        "cache": "miss",
        "cost": 0.001234,
        "currency": "RUB",
        "overhead_ms": 2.1,
        "usage_estimated": False,
    }


async def test_money_is_written_exactly() -> None:
    report = Report("r1", "local", "d", MISS, 90_071_992_547_409_930, "RUB", 0)
    wire = await stream(ROUTE, finished(report=report))
    assert b'"cost":90071992547.40993,' in wire.bodies[-1]


async def test_an_unknown_cost_is_null() -> None:
    wire = await stream(ROUTE, finished(report=Report("r1", "local", "d", MISS, None, "RUB", 0)))
    assert wire.events[-2]["llmmesh"]["cost"] is None
    assert "x-llmmesh-cost" not in dict(closing_headers(Report("r1", "local", "d", MISS, None, "RUB", 0)))


async def test_tool_calls_and_reasoning_have_their_own_members() -> None:
    wire = await stream(
        ROUTE, said(reasoning="hm"), said(tool_calls=[CALL]), finished(chat_pb2.FINISH_REASON_TOOL_CALLS)
    )
    _, reasoning, call, last, _ = wire.events
    assert reasoning["choices"][0]["delta"] == {"reasoning_content": "hm"}
    assert call["choices"][0]["delta"]["tool_calls"] == [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ]
    assert last["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_whole_answer_of_tool_calls_has_no_content() -> None:
    wire = Wire()
    events = told(ROUTE, said(tool_calls=[CALL]), finished(chat_pb2.FINISH_REASON_TOOL_CALLS))
    await wire.take(whole(events, ChatReply("r1", "m"), wire))
    message = orjson.loads(wire.bodies[0])["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ]


async def test_a_stopped_answer_says_content_filter() -> None:
    wire = await stream(ROUTE, said("The "), finished(chat_pb2.FINISH_REASON_CONTENT_FILTER))
    assert wire.events[-2]["choices"][0]["finish_reason"] == "content_filter"


async def test_an_answer_without_any_text_still_has_a_role_and_an_end() -> None:
    role, last, done = (await stream(ROUTE, finished())).events
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert (last["choices"][0]["finish_reason"], done) == ("stop", "data: [DONE]")


async def test_a_failure_before_the_first_piece_is_raised_and_sends_no_headers() -> None:
    wire = Wire()
    with pytest.raises(ProviderStreamBroken):
        await wire.take(streamed(told(ROUTE, error=ProviderStreamBroken("gone")), ChatReply("r1", "m"), wire))
    assert (wire.headers, wire.bodies) == ({}, [])


async def test_a_failure_after_the_first_piece_is_the_last_event_and_there_is_no_mark() -> None:
    wire = await stream(ROUTE, said("The "), error=ProviderStreamBroken("The stream broke: ask again."))
    assert wire.events[-1]["error"]["code"] == "provider_stream_broken"
    assert "data: [DONE]" not in wire.events


async def test_a_failure_of_our_own_keeps_its_text_inside() -> None:
    wire = await stream(ROUTE, said("The "), error=ZeroDivisionError("secret"))
    assert wire.events[-1]["error"]["code"] == "internal_error"
    assert b"secret" not in b"".join(wire.bodies)


async def test_a_cached_answer_is_one_body_and_costs_nothing() -> None:
    wire = await stream(
        Route("r1", "local", "d", EXACT, 0.001, free_in="RUB", whole=True), said("The fox."), finished()
    )
    assert len(wire.bodies) == 1
    assert len(wire.events) == 4
    assert wire.headers["x-llmmesh-cost"] == "0 RUB"
    assert wire.headers["x-llmmesh-cache"] == "exact"


async def test_the_short_form_is_answered_in_short() -> None:
    wire = Wire()
    await wire.take(whole(told(ROUTE, said("The fox."), finished()), ShortReply("m"), wire))
    answer = orjson.loads(wire.bodies[0])
    assert (answer["content"], answer["provider"], answer["cached"]) == ("The fox.", "local", False)
    assert (answer["model"], answer["cost"], answer["currency"]) == ("m", 0.001234, "RUB")


async def test_the_short_form_streams_its_content() -> None:
    wire = Wire()
    await wire.take(streamed(told(ROUTE, said("The "), said("fox."), finished()), ShortReply("m"), wire))
    first, second, last, done = wire.events
    assert (first, second, done) == ({"content": "The "}, {"content": "fox."}, "data: [DONE]")
    assert (last["content"], last["provider"]) == ("", "local")


@pytest.mark.parametrize(
    ("micros", "text"), [(0, "0"), (1, "0.000001"), (1_234, "0.001234"), (1_000_000, "1"), (12_500_000, "12.5")]
)
def test_micro_units_are_written_as_a_decimal_number(micros: int, text: str) -> None:
    assert money(micros) == text


def test_a_stream_of_unknown_cost_announces_none() -> None:
    assert "x-llmmesh-cost" not in dict(opening_headers(ROUTE))


async def test_an_answer_is_put_together_from_its_pieces() -> None:
    pieces = [chat_pb2.ToolCallDelta(index=0, id="c1", name="f"), chat_pb2.ToolCallDelta(index=0, arguments="{}")]
    events = told(ROUTE, said("a", reasoning="r"), said("b"), said(tool_calls=pieces), finished())
    answer = (await collected(events)).answer
    assert (answer.text, answer.reasoning, answer.tool_calls[0].arguments) == ("ab", "r", "{}")
