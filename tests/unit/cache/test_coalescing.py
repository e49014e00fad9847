from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from meshkit.background import in_background
from meshkit.dependency import Unavailable
from services.cache.coalescing import Coalescer


class Store:
    """Answers with the key itself once it is let, and remembers what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()

    async def fetch(self, keys: Sequence[str], timeout_seconds: float) -> Sequence[bytes | None]:
        self.batches.append(list(keys))
        self.asked.set()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.open.wait()
        except TimeoutError:
            raise Unavailable("late") from None
        return [key.encode() for key in keys]


async def test_lookups_of_one_tick_share_a_round_trip() -> None:
    store = Store()
    lookups = Coalescer(store.fetch, timeout_seconds=5)
    async with in_background(lookups.run()):
        found = await asyncio.gather(*(lookups.get(key) for key in "abca"))
    assert found == [b"a", b"b", b"c", b"a"]
    assert store.batches == [["a", "b", "c"]]


async def test_what_arrives_during_a_round_trip_shares_the_next() -> None:
    store = Store()
    store.open.clear()
    lookups = Coalescer(store.fetch, timeout_seconds=5)
    async with in_background(lookups.run()), asyncio.TaskGroup() as group:
        group.create_task(lookups.get("a"))
        await store.asked.wait()
        for key in "bcd":
            group.create_task(lookups.get(key))
        await asyncio.sleep(0)
        store.open.set()
    assert store.batches == [["a"], ["b", "c", "d"]]


async def test_a_batch_is_bounded() -> None:
    store = Store()
    lookups = Coalescer(store.fetch, timeout_seconds=5, largest_batch=2)
    async with in_background(lookups.run()):
        await asyncio.gather(*(lookups.get(key) for key in "abcde"))
    assert [len(batch) for batch in store.batches] == [2, 2, 1]


async def test_a_store_that_is_away_fails_every_lookup_of_the_batch() -> None:
    store = Store()
    store.open.clear()
    lookups = Coalescer(store.fetch, timeout_seconds=0.01)
    async with in_background(lookups.run()):
        outcomes = await asyncio.gather(*(lookups.get(key) for key in "ab"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]


async def test_a_caller_who_leaves_takes_nobody_along() -> None:
    store = Store()
    store.open.clear()
    lookups = Coalescer(store.fetch, timeout_seconds=5)
    async with in_background(lookups.run()), asyncio.TaskGroup() as group:
        leaving = group.create_task(lookups.get("a"))
        staying = group.create_task(lookups.get("a"))
        await store.asked.wait()
        leaving.cancel()
        store.open.set()
    assert staying.result() == b"a"


async def test_too_many_waiting_lookups_are_refused_at_once() -> None:
    store = Store()
    store.open.clear()
    lookups = Coalescer(store.fetch, timeout_seconds=5, most_waiting=1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(lookups.get("a"))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await lookups.get("b")
        waiting.cancel()


async def test_lookups_in_flight_are_told_when_the_cache_stops() -> None:
    store = Store()
    store.open.clear()
    lookups = Coalescer(store.fetch, timeout_seconds=5)
    async with asyncio.TaskGroup() as group, in_background(lookups.run()):
        waiting = group.create_task(_outcome(lookups, "a"))
        await store.asked.wait()
    assert isinstance(waiting.result(), Unavailable)


async def _outcome(lookups: Coalescer, key: str) -> bytes | Unavailable | None:
    try:
        return await lookups.get(key)
    except Unavailable as error:
        return error
