"""Items on their way to another room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from prometheus_client import REGISTRY

from meshkit.errors import BillingUnavailable, ReservationConflict
from services.gateway.measures import OUTBOX_DROPPED
from services.gateway.outbox import Outbox, OutboxLimits


class Room:
    """Where items go; away for as long as the test says."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.away = asyncio.Event()
        self.refused = asyncio.Event()
        self.fault: Exception | None = None

    async def take(self, batch: Sequence[int]) -> None:
        if self.fault is not None:
            self.refused.set()
            raise self.fault
        self.batches.append(list(batch))

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


@asynccontextmanager
async def delivering(outbox: Outbox[int]) -> AsyncIterator[None]:
    task = asyncio.create_task(outbox.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def dropped(name: str) -> float:
    return OUTBOX_DROPPED.labels(name)._value.get()


async def test_items_arrive_in_order_and_in_batches() -> None:
    room = Room()
    outbox: Outbox[int] = Outbox("t", room.take, OutboxLimits(100, batch_size=10, linger_seconds=0.01))
    for item in range(25):
        assert outbox.put(item)
    async with delivering(outbox):
        await outbox.drain()
    assert room.items == list(range(25))
    assert max(map(len, room.batches)) == 10
    assert len(outbox) == 0


async def test_a_room_that_is_away_gets_everything_when_it_is_back() -> None:
    room = Room()
    room.fault = BillingUnavailable("away")
    outbox: Outbox[int] = Outbox("t", room.take, OutboxLimits(100, batch_size=3, first_pause_seconds=0.001))
    async with delivering(outbox):
        for item in range(7):
            outbox.put(item)
        await room.refused.wait()
        room.fault = None
        await outbox.drain()
    assert room.items == list(range(7))


async def test_a_full_outbox_drops_what_comes_and_counts_it() -> None:
    outbox: Outbox[int] = Outbox("full", Room().take, OutboxLimits(2))
    before = dropped("full")
    assert [outbox.put(item) for item in range(4)] == [True, True, False, False]
    assert dropped("full") - before == 2


async def test_drops_are_shown_before_there_are_any() -> None:
    Outbox("unused", Room().take, OutboxLimits(1))
    assert REGISTRY.get_sample_value("llmmesh_outbox_dropped_total", {"outbox": "unused"}) == 0


async def test_items_that_are_refused_are_dropped_and_those_behind_them_arrive() -> None:
    room = Room()
    room.fault = ReservationConflict("closed")
    outbox: Outbox[int] = Outbox("refused", room.take, OutboxLimits(10))
    before = dropped("refused")
    async with delivering(outbox):
        outbox.put(1)
        await outbox.drain()
        room.fault = None
        outbox.put(2)
        await outbox.drain()
    assert room.items == [2]
    assert dropped("refused") - before == 1


async def test_attempts_may_be_limited() -> None:
    room = Room()
    room.fault = BillingUnavailable("away")
    outbox: Outbox[int] = Outbox("limited", room.take, OutboxLimits(10, attempts=2, first_pause_seconds=0.001))
    before = dropped("limited")
    async with delivering(outbox):
        outbox.put(1)
        await outbox.drain()
    assert dropped("limited") - before == 1


async def test_draining_does_not_wait_for_company() -> None:
    room = Room()
    outbox: Outbox[int] = Outbox("t", room.take, OutboxLimits(10, batch_size=10, linger_seconds=60))
    async with delivering(outbox):
        outbox.put(1)
        await asyncio.wait_for(outbox.drain(), 2)
    assert room.items == [1]


async def test_several_batches_are_under_way_at_once() -> None:
    both = asyncio.Barrier(2)

    async def meet(batch: Sequence[int]) -> None:
        await both.wait()

    outbox: Outbox[int] = Outbox("t", meet, OutboxLimits(10, workers=2))
    async with delivering(outbox):
        outbox.put(1)
        outbox.put(2)
        await asyncio.wait_for(outbox.drain(), 2)


async def test_one_item_that_is_refused_takes_no_other_along() -> None:
    taken: list[int] = []

    async def pick(batch: Sequence[int]) -> None:
        if 3 in batch:
            raise ReservationConflict("closed")
        taken.extend(batch)

    outbox: Outbox[int] = Outbox("picky", pick, OutboxLimits(10, batch_size=10))
    before = dropped("picky")
    for item in range(6):
        outbox.put(item)
    async with delivering(outbox):
        await outbox.drain()
    assert taken == [0, 1, 2, 4, 5]
    assert dropped("picky") - before == 1
