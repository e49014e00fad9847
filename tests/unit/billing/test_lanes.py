"""Calls that arrive while a batch is under way share the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from meshkit.errors import BudgetExceeded, DependencyUnavailable
from services.billing.coalescing import Lane


class Doubling:
    """Doubles numbers, one batch at a time, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()
        self.fault: Exception | None = None

    async def work(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self.started.set()
        await self.release.wait()
        if self.fault:
            raise self.fault
        return [BudgetExceeded("odd") if item % 2 else item * 2 for item in items]

    def lane(self, *, batch_items: int = 64, waiting_items: int = 64, seconds: float = 5) -> Lane[int, int]:
        return Lane("test", self.work, batch_items=batch_items, waiting_items=waiting_items, seconds=seconds)


@asynccontextmanager
async def at_work(lane: Lane[int, int]) -> AsyncIterator[None]:
    task = asyncio.create_task(lane.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_lone_call_is_a_batch_of_one() -> None:
    doubling = Doubling()
    lane = doubling.lane()
    async with at_work(lane):
        assert await lane.submit(2) == 4
    assert doubling.batches == [[2]]


async def test_calls_that_arrive_meanwhile_go_together_in_order() -> None:
    doubling = Doubling()
    doubling.release.clear()
    lane = doubling.lane(batch_items=3)
    async with at_work(lane):
        first = asyncio.create_task(lane.submit(0))
        await doubling.started.wait()
        rest = [asyncio.create_task(lane.submit(number)) for number in (2, 4, 6, 8)]
        await asyncio.sleep(0)
        doubling.release.set()
        assert await asyncio.gather(first, *rest) == [0, 4, 8, 12, 16]
    assert doubling.batches == [[0], [2, 4, 6], [8]]


async def test_an_item_fails_alone() -> None:
    lane = Doubling().lane()
    async with at_work(lane):
        answers = await asyncio.gather(lane.submit(1), lane.submit(2), return_exceptions=True)
    assert isinstance(answers[0], BudgetExceeded)
    assert answers[1] == 4


async def test_a_batch_that_fails_fails_everyone_and_the_next_goes_on() -> None:
    doubling = Doubling()
    doubling.fault = DependencyUnavailable("away")
    lane = doubling.lane()
    async with at_work(lane):
        answers = await asyncio.gather(lane.submit(2), lane.submit(4), return_exceptions=True)
        assert {type(answer) for answer in answers} == {DependencyUnavailable}
        doubling.fault = None
        assert await lane.submit(6) == 12


async def test_a_full_lane_refuses_at_once() -> None:
    lane = Doubling().lane(waiting_items=1)
    waiting = asyncio.create_task(lane.submit(2))
    await asyncio.sleep(0)
    with pytest.raises(DependencyUnavailable, match="Too much"):
        await lane.submit(4)
    async with at_work(lane):
        assert await waiting == 4


async def test_nobody_waits_beyond_the_deadline() -> None:
    doubling = Doubling()
    doubling.release.clear()
    lane = doubling.lane(seconds=0.01)
    async with at_work(lane):
        with pytest.raises(DependencyUnavailable, match="too long"):
            await lane.submit(2)


async def test_whoever_left_while_waiting_is_left_out() -> None:
    doubling = Doubling()
    doubling.release.clear()
    lane = doubling.lane()
    async with at_work(lane):
        first = asyncio.create_task(lane.submit(0))
        await doubling.started.wait()
        leaving, staying = (asyncio.create_task(lane.submit(number)) for number in (2, 4))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        doubling.release.set()
        await first
        assert await staying == 8
    assert doubling.batches == [[0], [4]]


async def test_stopping_tells_whoever_waits() -> None:
    doubling = Doubling()
    doubling.release.clear()
    lane = doubling.lane()
    async with at_work(lane):
        under_way = asyncio.create_task(lane.submit(2))
        await doubling.started.wait()
        waiting = asyncio.create_task(lane.submit(4))
        await asyncio.sleep(0)
    for task in (under_way, waiting):
        with pytest.raises(DependencyUnavailable, match="stopping"):
            await task


async def test_a_busy_lane_lets_calls_gather() -> None:
    doubling = Doubling()
    doubling.release.clear()
    lane = doubling.lane()
    first = [asyncio.create_task(lane.submit(number)) for number in (0, 2)]
    await asyncio.sleep(0)
    async with at_work(lane):
        await doubling.started.wait()
        asyncio.get_running_loop().call_later(0.02, doubling.release.set)
        await asyncio.gather(*first)
        early = asyncio.create_task(lane.submit(4))
        for _ in range(5):
            await asyncio.sleep(0)
        assert await lane.submit(6) == 12
        assert await early == 8
    assert doubling.batches == [[0, 2], [4, 6]]
