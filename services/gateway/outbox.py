"""What must reach another room although nobody waits for it: a bounded queue, sent in batches, retried."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshkit.errors import DependencyUnavailable
from meshkit.log import get_logger
from services.gateway.measures import OUTBOX_DROPPED, OUTBOX_LENGTH

Item = TypeVar("Item")

log = get_logger()


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """How an outbox works."""

    capacity: int
    """Items kept; further ones are dropped and counted."""
    batch_size: int = 1
    """Most items sent at once."""
    linger_seconds: float = 0.0
    """How long a first item waits for company."""
    attempts: int | None = None
    """How often to send a batch before dropping it; None means until accepted."""
    workers: int = 1
    """Batches under way at once."""
    first_pause_seconds: float = 0.1
    """Pause after a failed attempt; doubles up to `longest_pause_seconds`."""
    longest_pause_seconds: float = 5.0
    """Longest pause between attempts."""


class Outbox(Generic[Item]):
    """Items on their way to another room.

    `send` raises DependencyUnavailable when it is worth trying again; of a batch refused in any other way each item is
    sent alone, and those refused again are dropped.
    """

    def __init__(self, name: str, send: Callable[[Sequence[Item]], Awaitable[None]], limits: OutboxLimits) -> None:
        self._name = name
        self._length = OUTBOX_LENGTH.labels(name)
        # Shown from 0 on: a count that appears at 1 is no increase to an alert.
        self._dropped = OUTBOX_DROPPED.labels(name)
        self._send = send
        self._limits = limits
        self._items: deque[Item] = deque()
        self._under_way = 0
        self._turn = asyncio.Lock()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._draining = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items) + self._under_way

    def put(self, item: Item) -> bool:
        """Take an item without waiting; False when the outbox is full and the item was dropped."""
        if len(self) >= self._limits.capacity:
            self._drop(1, "full")
            return False
        self._items.append(item)
        self._filled.set()
        self._emptied.clear()
        self._length.set(len(self))
        return True

    async def run(self) -> None:
        """Send items until cancelled."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._limits.workers):
                workers.create_task(self._work())

    async def drain(self) -> None:
        """Wait until everything taken so far is sent; lingering ends at once."""
        self._draining.set()
        await self._emptied.wait()

    async def _work(self) -> None:
        while True:
            async with self._turn:  # an item wakes one worker, not all
                batch = await self._next_batch()
            try:
                await self._deliver(batch)
            finally:
                self._under_way -= len(batch)
                self._settle_length()

    async def _next_batch(self) -> list[Item]:
        await self._filled.wait()
        if self._limits.linger_seconds and len(self._items) < self._limits.batch_size:
            await self._linger()
        batch = [self._items.popleft() for _ in range(min(len(self._items), self._limits.batch_size))]
        self._under_way += len(batch)
        if not self._items:
            self._filled.clear()
        return batch

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(self._limits.linger_seconds):
                await self._draining.wait()
        except TimeoutError:
            return

    async def _deliver(self, batch: Sequence[Item]) -> None:
        pause, attempt = self._limits.first_pause_seconds, 1
        while True:
            try:
                await self._send(batch)
            except DependencyUnavailable as error:
                if attempt == self._limits.attempts:
                    self._drop(len(batch), error.reason)
                    return
            except Exception:
                log.exception("outbox_refused", outbox=self._name, items=len(batch))
                await self._refused(batch)
                return
            else:
                return
            await asyncio.sleep(pause)
            pause, attempt = min(pause * 2, self._limits.longest_pause_seconds), attempt + 1

    async def _refused(self, batch: Sequence[Item]) -> None:
        """Give each item its own chance: one that cannot be sent must not take those beside it along."""
        if len(batch) == 1:
            self._drop(1, "refused")
            return
        for item in batch:
            await self._deliver([item])

    def _settle_length(self) -> None:
        self._length.set(len(self))
        if not len(self):
            self._emptied.set()

    def _drop(self, count: int, why: str) -> None:
        self._dropped.inc(count)
        log.error("outbox_dropped", outbox=self._name, items=count, why=why)
