"""The pace of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from llmmesh.chat.v1 import chat_pb2
from services.router.deployment import TimeLimits
from services.router.pacing import TimedStream, coalesced
from services.router.providers.provider import AnswerEvent, Ended, FailureKind, ProviderFailure

END = Ended(chat_pb2.FINISH_REASON_STOP, None)
LONG = 60.0


def says(text: str = "", **fields: object) -> chat_pb2.Delta:
    return chat_pb2.Delta(text=text, **fields)


async def spoken(*events: AnswerEvent | asyncio.Event) -> AsyncGenerator[AnswerEvent, None]:
    for event in events:
        if isinstance(event, asyncio.Event):
            await event.wait()
        else:
            yield event


async def to_the_end(stream: TimedStream) -> None:
    event = await stream.first()
    while event != END:
        event = await stream.next()


async def test_empty_pieces_are_no_token():
    stream = TimedStream(spoken(says(), says(), says("hi"), says(), END), TimeLimits())
    assert await stream.first() == says("hi")
    assert await stream.next() == END


async def test_silence_before_the_first_token_is_a_timeout_even_if_empty_pieces_come():
    async def heartbeat() -> AsyncGenerator[AnswerEvent, None]:
        while True:
            yield says()
            await asyncio.sleep(0)

    stream = TimedStream(heartbeat(), TimeLimits(first_token_seconds=0.05))
    with pytest.raises(ProviderFailure) as caught:
        await stream.first()
    assert caught.value.kind is FailureKind.TIMEOUT


async def test_silence_between_tokens_is_a_timeout():
    stream = TimedStream(spoken(says("hi"), asyncio.Event()), TimeLimits(idle_chunk_seconds=0.05))
    await stream.first()
    with pytest.raises(ProviderFailure) as caught:
        await stream.next()
    assert caught.value.kind is FailureKind.TIMEOUT
    assert stream.waited_seconds >= 0.05


async def test_an_answer_that_never_ends_is_a_timeout():
    async def endless() -> AsyncGenerator[AnswerEvent, None]:
        while True:
            yield says("more")
            await asyncio.sleep(0)

    stream = TimedStream(endless(), TimeLimits(answer_seconds=0.1))
    with pytest.raises(ProviderFailure):
        await to_the_end(stream)


async def test_an_answer_without_an_end_is_malformed():
    stream = TimedStream(spoken(says("hi")), TimeLimits())
    await stream.first()
    with pytest.raises(ProviderFailure) as caught:
        await stream.next()
    assert caught.value.kind is FailureKind.MALFORMED


async def test_what_has_already_arrived_goes_out_as_one_message():
    pieces = [event async for event in coalesced(spoken(says("a"), says("b"), says("c"), END), LONG)]
    assert pieces == [Ended(END.finish_reason, END.usage, says("abc"))]


async def test_the_end_does_not_wait_for_the_window():
    async with asyncio.timeout(1):
        assert [event async for event in coalesced(spoken(END), LONG)] == [END]


async def test_without_a_window_every_token_goes_at_once():
    gates = [asyncio.Event(), asyncio.Event()]
    events = coalesced(spoken(says("a"), gates[0], says("b"), gates[1], END), 0)
    assert await anext(events) == says("a")
    gates[0].set()
    assert await anext(events) == says("b")
    gates[1].set()
    assert await anext(events) == END


async def test_pieces_of_one_tool_call_are_joined_and_calls_kept_apart():
    def call(index: int, arguments: str, id: str = "") -> chat_pb2.Delta:
        return says(tool_calls=[chat_pb2.ToolCallDelta(index=index, id=id, arguments=arguments)])

    stream = spoken(call(0, "", "c0"), call(0, "{"), call(0, "}"), call(1, "", "c1"), call(1, "[]"), END)
    (ended,) = [event async for event in coalesced(stream, LONG)]
    assert [(piece.id, piece.arguments) for piece in ended.last.tool_calls] == [("c0", "{}"), ("c1", "[]")]


async def test_a_break_is_raised_after_what_was_said():
    async def breaking() -> AsyncGenerator[AnswerEvent, None]:
        yield says("half")
        raise ProviderFailure(FailureKind.UNAVAILABLE, "cut")

    events = coalesced(breaking(), LONG)
    assert await anext(events) == says("half")
    with pytest.raises(ProviderFailure):
        await anext(events)


async def test_closing_stops_the_reading():
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[AnswerEvent, None]:
        try:
            yield says("a")
            await asyncio.Event().wait()
        finally:
            closed.set()

    events = coalesced(endless(), 0)
    await anext(events)
    await events.aclose()
    assert closed.is_set()


async def test_a_slow_caller_holds_the_provider_back():
    said = 0

    async def eager() -> AsyncGenerator[AnswerEvent, None]:
        nonlocal said
        while True:
            said += 1
            yield says("x")

    events = coalesced(eager(), 0)
    await anext(events)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert said < 1000
    await events.aclose()
