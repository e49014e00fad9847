"""One answer heard by several callers while it is spoken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from services.gateway.broadcast import FURTHEST_AHEAD, Broadcast


class Speech:
    """A source that says a number whenever it is told to, and notes how it ended."""

    def __init__(self, *, fails_after: int | None = None) -> None:
        self.ticks = asyncio.Semaphore(0)
        self.said = 0
        self.closed = asyncio.Event()
        self.begun = 0
        self._fails_after = fails_after
        self.broadcast = Broadcast(self._numbers(), self._begin)

    def _begin(self) -> None:
        self.begun += 1

    def say(self, count: int) -> None:
        for _ in range(count):
            self.ticks.release()

    async def _numbers(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(1000):
                await self.ticks.acquire()
                if number == self._fails_after:
                    raise ValueError("broken")
                self.said += 1
                yield number
        finally:
            self.closed.set()


async def some(listening: AsyncGenerator[int, None], count: int) -> list[int]:
    return [await anext(listening) for _ in range(count)]


async def test_who_comes_late_hears_everything_from_the_beginning() -> None:
    speech = Speech()
    first, late = speech.broadcast.listen(), speech.broadcast.listen()
    speech.say(3)
    assert await some(first, 3) == await some(late, 3) == [0, 1, 2]
    speech.say(1)
    assert await anext(late) == await anext(first) == 3
    assert speech.begun == 1
    await first.aclose()
    await late.aclose()


async def test_the_one_who_began_may_leave_and_the_last_one_ends_it() -> None:
    speech = Speech()
    first, second = speech.broadcast.listen(), speech.broadcast.listen()
    speech.say(1)
    await anext(first), await anext(second)
    await first.aclose()
    assert not speech.closed.is_set()
    speech.say(1)
    assert await anext(second) == 1
    await second.aclose()
    assert speech.closed.is_set()
    assert speech.broadcast.ended


async def test_everybody_hears_the_failure_where_it_comes() -> None:
    speech = Speech(fails_after=2)
    first, second = speech.broadcast.listen(), speech.broadcast.listen()
    speech.say(3)
    for listening in (first, second):
        assert await some(listening, 2) == [0, 1]
        with pytest.raises(ValueError, match="broken"):
            await anext(listening)


async def test_a_source_that_fails_at_once_was_never_begun() -> None:
    speech = Speech(fails_after=0)
    speech.say(1)
    with pytest.raises(ValueError, match="broken"):
        await anext(speech.broadcast.listen())
    assert speech.begun == 0


async def test_who_leaves_in_the_very_first_moment_has_the_source_closed() -> None:
    speech = Speech()
    listener = asyncio.create_task(anext(speech.broadcast.listen()))  # type: ignore[arg-type]
    asyncio.get_running_loop().call_soon(listener.cancel)
    await asyncio.wait([listener])
    assert listener.cancelled()
    assert speech.closed.is_set()


async def test_a_slow_listener_slows_nobody_and_slow_ones_alone_slow_the_source() -> None:
    speech = Speech()
    quick, slow = speech.broadcast.listen(), speech.broadcast.listen()
    speech.say(500)
    assert await anext(slow) == 0
    assert len(await some(quick, 400)) == 400
    assert 400 <= speech.said <= 400 + FURTHEST_AHEAD + 1
    assert await some(slow, 3) == [1, 2, 3]
    await quick.aclose()
    await slow.aclose()
