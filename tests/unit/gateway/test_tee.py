"""An answer on its way through the guard, over plain async iterators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import GuardUnavailable, ProviderStreamBroken
from services.gateway.stops import AnswerBlocked
from services.gateway.tee import Tee, unwatched

ALLOW = guard_pb2.Verdict(action=guard_pb2.ACTION_ALLOW, policy_version="v1")
BLOCK = guard_pb2.Verdict(action=guard_pb2.ACTION_BLOCK, policy_version="v1")
FINISHED = router_pb2.StreamGenerateChatResponse(
    finished=router_pb2.Finished(finish_reason=chat_pb2.FINISH_REASON_STOP)
)


def said(text: str = "", reasoning: str = "", **call: Any) -> router_pb2.StreamGenerateChatResponse:
    calls = [chat_pb2.ToolCallDelta(**call)] if call else []
    return router_pb2.StreamGenerateChatResponse(delta=chat_pb2.Delta(text=text, reasoning=reasoning, tool_calls=calls))


async def spoken(*steps: router_pb2.StreamGenerateChatResponse) -> AsyncIterator[Any]:
    for step in steps:
        yield step


def guard(*, hold: int = 4, forbidden: str = "\0", mask: Callable[[str], str] = str) -> Any:
    """A watch that holds the last `hold` characters back and blocks at `forbidden`."""

    async def watch(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        held = ""
        async for piece in pieces:
            held += piece.text
            if forbidden in held:
                yield guard_pb2.WatchAnswerResponse(verdict=BLOCK)
                return
            cut = len(held) if piece.last else max(0, len(held) - hold)
            yield guard_pb2.WatchAnswerResponse(text=mask(held[:cut]), verdict=ALLOW if piece.last else None)
            held = held[cut:]

    return watch


async def broken(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
    piece = await anext(pieces)
    yield guard_pb2.WatchAnswerResponse(text=piece.text[:1])
    raise GuardUnavailable("away")


def tee(watch: Any, *, fail_open: bool = False, verdict_seconds: float = 5) -> Tee:
    return Tee(watch, fail_open=fail_open, verdict_seconds=verdict_seconds)


async def heard(pieces: Any) -> list[Any]:
    async with aclosing(pieces) as items:
        return [item async for item in items]


async def gathered(pieces: Any, into: list[Any]) -> None:
    async for item in pieces:
        into.append(item)  # noqa: PERF401 - what came before a failure is kept


def text_of(items: list[Any]) -> str:
    return "".join(item.text for item in items if isinstance(item, chat_pb2.Delta))


async def test_text_is_neither_lost_nor_doubled_nor_reordered() -> None:
    steps = [said(f"{number} ") for number in range(200)]
    items = await heard(tee(guard()).through(spoken(*steps, FINISHED)))
    assert text_of(items) == "".join(f"{number} " for number in range(200))
    assert items[-1] == FINISHED.finished


async def test_a_block_stops_the_answer_before_the_forbidden_text() -> None:
    shown: list[Any] = []
    pieces = tee(guard(forbidden="secret")).through(spoken(said("the "), said("sec"), said("ret is"), FINISHED))
    with pytest.raises(AnswerBlocked):
        await gathered(pieces, shown)
    assert text_of(shown) == "the "[: len(text_of(shown))]


async def test_a_block_cancels_the_one_who_speaks() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[Any]:
        try:
            yield said("stop here")
            await asyncio.Event().wait()
        finally:
            closed.set()

    with pytest.raises(AnswerBlocked):
        await heard(tee(guard(forbidden="stop")).through(endless()))
    await asyncio.wait_for(closed.wait(), 2)


async def again_and_again(closed: asyncio.Event) -> AsyncIterator[Any]:
    """Speaks until it is cancelled, and says when it is."""
    try:
        while True:
            yield said("again and again ")
    finally:
        closed.set()


async def test_a_caller_who_leaves_cancels_the_one_who_speaks() -> None:
    closed = asyncio.Event()
    pieces = tee(guard()).through(again_and_again(closed))
    await anext(pieces)
    await pieces.aclose()
    await asyncio.wait_for(closed.wait(), 2)


async def test_who_leaves_an_unwatched_answer_cancels_the_one_who_speaks_at_once() -> None:
    closed = asyncio.Event()
    pieces = unwatched(again_and_again(closed))
    await anext(pieces)
    await pieces.aclose()
    assert closed.is_set()


async def test_reasoning_is_watched_apart_from_text() -> None:
    steps = spoken(said(reasoning="se"), said(text="cret", reasoning="x"), FINISHED)
    items = await heard(tee(guard(forbidden="secret")).through(steps))
    assert text_of(items) == "cret"
    assert "".join(item.reasoning for item in items[:-1]) == "sex"


async def test_reasoning_that_the_guard_blocks_stops_the_answer() -> None:
    with pytest.raises(AnswerBlocked):
        await heard(tee(guard(forbidden="secret")).through(spoken(said(reasoning="secret"), FINISHED)))


async def test_tool_calls_are_held_until_complete_and_come_out_whole() -> None:
    steps = spoken(
        said(index=0, id="a", name="sum", arguments='{"x":'),
        said(index=1, id="b", name="now"),
        said(index=0, arguments="1}"),
        FINISHED,
    )
    items = await heard(tee(guard()).through(steps))
    assert [(call.id, call.name, call.arguments) for call in items[0].tool_calls] == [
        ("a", "sum", '{"x":1}'),
        ("b", "now", ""),
    ]
    assert len(items) == 2


async def test_arguments_that_the_guard_blocks_stop_the_answer() -> None:
    steps = spoken(said(index=0, id="a", name="send", arguments='"sec'), said(index=0, arguments='ret"'), FINISHED)
    with pytest.raises(AnswerBlocked):
        await heard(tee(guard(forbidden="secret")).through(steps))


async def test_masked_arguments_replace_the_models() -> None:
    def mask(text: str) -> str:
        return text.replace("ada@x.org", "[E-MAIL]")

    steps = spoken(said(index=0, id="a", name="send", arguments='{"to":"ada@x.org"}'), FINISHED)
    items = await heard(tee(guard(hold=100, mask=mask)).through(steps))
    assert items[0].tool_calls[0].arguments == '{"to":"[E-MAIL]"}'


async def test_a_guard_that_breaks_ends_the_answer() -> None:
    with pytest.raises(GuardUnavailable):
        await heard(tee(broken).through(spoken(said("hello"), FINISHED)))


async def test_a_guard_that_breaks_lets_text_pass_when_the_policy_says_so() -> None:
    passing = tee(broken, fail_open=True)
    items = await heard(passing.through(spoken(said("hello "), said("world"), FINISHED)))
    assert text_of(items) == "hello world"
    assert passing.unguarded


async def test_a_guard_that_ends_without_a_verdict_has_judged_nothing() -> None:
    async def silent(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            yield guard_pb2.WatchAnswerResponse(text=piece.text)

    with pytest.raises(GuardUnavailable):
        await heard(tee(silent).through(spoken(said("hello"), FINISHED)))


async def test_a_verdict_that_is_an_error_is_no_permission() -> None:
    async def confused(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            if piece.last:
                yield guard_pb2.WatchAnswerResponse(
                    text="hello", verdict=guard_pb2.Verdict(action=guard_pb2.ACTION_ERROR)
                )

    with pytest.raises(GuardUnavailable):
        await heard(tee(confused).through(spoken(said("hello"), FINISHED)))


async def test_a_guard_that_never_gives_its_last_verdict_is_away() -> None:
    async def frozen(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None

    with pytest.raises(GuardUnavailable):
        await heard(tee(frozen, verdict_seconds=0.01).through(spoken(said("hello"), FINISHED)))


async def test_an_answer_without_a_last_word_is_broken() -> None:
    with pytest.raises(ProviderStreamBroken):
        await heard(tee(guard()).through(spoken(said("hel"))))
    with pytest.raises(ProviderStreamBroken):
        await heard(unwatched(spoken(said("hel"))))


async def test_a_provider_that_fails_is_reported_as_it_failed() -> None:
    async def failing() -> AsyncIterator[Any]:
        yield said("hel")
        raise ConnectionResetError("peer")

    with pytest.raises(ConnectionResetError):
        await heard(tee(guard()).through(failing()))


async def test_an_empty_answer_is_just_its_end() -> None:
    assert await heard(tee(guard()).through(spoken(FINISHED))) == [FINISHED.finished]


async def test_the_watch_opens_before_the_provider_speaks() -> None:
    opened = asyncio.Event()

    async def watch(pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        opened.set()
        async for response in guard()(pieces):
            yield response

    async def slow() -> AsyncIterator[Any]:
        await opened.wait()
        yield said("late")
        yield FINISHED

    async with asyncio.timeout(5):
        assert text_of(await heard(tee(watch).through(slow()))) == "late"


async def test_who_answers_passes_as_it_is() -> None:
    route = router_pb2.StreamGenerateChatResponse(route=router_pb2.RouteChosen(deployment="d"))
    assert await heard(tee(guard()).through(spoken(route, FINISHED))) == [route.route, FINISHED.finished]


async def test_verdicts_of_every_watch_are_kept() -> None:
    watched = tee(guard())
    await heard(watched.through(spoken(said("a", "b", index=0, id="x", name="f"), FINISHED)))
    assert [verdict.policy_version for verdict in watched.verdicts] == ["v1", "v1", "v1"]
