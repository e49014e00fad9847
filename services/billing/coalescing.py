"""Many concurrent calls as few: what arrives while a batch is under way goes in the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NoReturn, TypeVar

from meshkit.deadline import time_left
from meshkit.errors import DependencyUnavailable
from services.billing.metrics import BATCH_ITEMS

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

LONGEST_REST_SECONDS = 0.02

Work = Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]]
"""Does a batch; one outcome per item, an exception for an item that failed alone."""


class Lane(Generic[Item, Outcome]):
    """One batch at a time. A lone item waits for nothing, so batching costs an idle lane no latency.

    A busy lane rests: a batch costs the same however few are in it, and what it costs is taken from those who would
    fill the next one. The more came together the last time, the longer it rests.
    """

    def __init__(
        self, name: str, work: Work[Item, Outcome], *, batch_items: int, waiting_items: int, seconds: float
    ) -> None:
        self._work = work
        self._batch_items = batch_items
        self._seconds = seconds
        self._waiting: asyncio.Queue[tuple[Item, asyncio.Future[Outcome]]] = asyncio.Queue(waiting_items)
        self._sizes = BATCH_ITEMS.labels(name)

    async def submit(self, item: Item) -> Outcome:
        """Have `item` done with the next batch. A caller that is cancelled does not undo it.

        Raises:
            DependencyUnavailable: If the lane is full, or the deadline passes.
        """
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((item, outcome))
            async with asyncio.timeout(time_left(at_most=self._seconds)):
                return await outcome
        except asyncio.QueueFull:
            raise DependencyUnavailable("Too much is waiting to be written: retry.", retry_after_seconds=1) from None
        except TimeoutError:
            raise DependencyUnavailable("The database took too long: retry.", retry_after_seconds=1) from None

    async def run(self) -> NoReturn:
        """Work until cancelled; whoever still waits then is told so."""
        try:
            while True:
                batch = await self._next_batch()
                started = time.monotonic()
                await self._do(batch)
                if 1 < len(batch) < self._batch_items:
                    took = time.monotonic() - started
                    await asyncio.sleep(min(LONGEST_REST_SECONDS, took * len(batch)))
        finally:
            while not self._waiting.empty():
                _fail(self._waiting.get_nowait()[1], DependencyUnavailable("Billing is stopping: retry."))

    async def _next_batch(self) -> list[tuple[Item, asyncio.Future[Outcome]]]:
        batch = [await self._waiting.get()]
        while len(batch) < self._batch_items and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        # Whoever gave up while waiting is left out.
        return [(item, outcome) for item, outcome in batch if not outcome.done()]

    async def _do(self, batch: list[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        if not batch:
            return
        self._sizes.observe(len(batch))
        try:
            results = await self._work([item for item, _ in batch])
        except asyncio.CancelledError:
            results = [DependencyUnavailable("Billing is stopping: retry.")] * len(batch)
            _deliver(batch, results)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller gets it
            results = [error] * len(batch)
        _deliver(batch, results)


def _deliver(batch: Sequence[tuple[Item, asyncio.Future[Outcome]]], results: Sequence[Outcome | Exception]) -> None:
    for (_, outcome), result in zip(batch, results, strict=True):
        if isinstance(result, Exception):
            _fail(outcome, result)
        elif not outcome.done():
            outcome.set_result(result)


def _fail(outcome: asyncio.Future[Outcome], error: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(error)
