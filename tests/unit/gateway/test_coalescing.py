"""The same asked at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from services.gateway.coalescing import Coalescing


class Work:
    """Work that ends when the test says so."""

    def __init__(self) -> None:
        self.begun = 0
        self.end = asyncio.Event()
        self.beginning = asyncio.Event()

    def __call__(self) -> Coroutine[Any, Any, int]:
        self.begun += 1
        return self._run(self.begun)

    async def _run(self, number: int) -> int:
        self.beginning.set()
        await self.end.wait()
        return number


async def gathered(joining: Coalescing[int], work: Callable[[], Coroutine[Any, Any, int]], *keys: str) -> list[int]:
    return await asyncio.gather(*(joining.join(key, work) for key in keys))


async def test_the_same_is_done_once_and_another_apart() -> None:
    joining, work = Coalescing[int](), Work()
    work.end.set()
    assert await gathered(joining, work, "a", "a", "b", "a") == [1, 1, 2, 1]


async def test_nothing_is_kept_once_it_is_done() -> None:
    joining, work = Coalescing[int](), Work()
    work.end.set()
    assert await gathered(joining, work, "a") == [1]
    assert await gathered(joining, work, "a") == [2]


async def test_a_caller_who_leaves_does_not_take_the_others_along() -> None:
    joining, work = Coalescing[int](), Work()
    first = asyncio.create_task(joining.join("a", work))
    await work.beginning.wait()
    second = asyncio.create_task(joining.join("a", work))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.end.set()
    assert await second == 1
    assert work.begun == 1


async def test_it_is_known_whether_anybody_still_waits() -> None:
    joining, work = Coalescing[int](), Work()
    first, second = (asyncio.create_task(joining.join("a", work)) for _ in range(2))
    await work.beginning.wait()
    for leaving, waits in ((first, True), (second, False)):
        leaving.cancel()
        await asyncio.wait([leaving])
        assert joining.awaited("a") is waits
    work.end.set()
    assert await joining.join("a", work) == 1
    assert not joining.awaited("a")


async def test_a_failure_reaches_everybody() -> None:
    async def fail() -> int:
        raise ConnectionError

    joining = Coalescing[int]()
    results = await asyncio.gather(*(joining.join("a", fail) for _ in range(2)), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError, ConnectionError]


async def test_a_result_is_kept_as_long_as_it_says_itself() -> None:
    joining, work = Coalescing[int](lambda result: {1: 60.0, 2: 1e-6}.get(result, 0.0)), Work()
    work.end.set()
    assert [await joining.join("a", work) for _ in range(3)] == [1, 1, 1]
    lapsed = asyncio.Event()
    assert await joining.join("b", work) == 2
    asyncio.get_running_loop().call_later(0.05, lapsed.set)
    await lapsed.wait()
    assert await joining.join("b", work) == 3


async def test_a_failure_is_not_kept() -> None:
    async def fail() -> int:
        raise ConnectionError

    joining, work = Coalescing[int](lambda _: 60.0), Work()
    work.end.set()
    with pytest.raises(ConnectionError):
        await joining.join("a", fail)
    assert await joining.join("a", work) == 1
