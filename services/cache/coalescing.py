"""Gathers lookups that arrive together into one round trip."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from meshkit.dependency import Unavailable

Fetch = Callable[[Sequence[str], float], Awaitable[Sequence[bytes | None]]]
"""Reads values by key, in order, within a timeout in seconds; raises Unavailable."""


class Waiting(NamedTuple):
    """A lookup that has not been answered."""

    key: str
    since: float
    value: asyncio.Future[bytes | None]


class Coalescer:
    """One round trip at a time; what arrives meanwhile, or in one tick of the loop, shares the next.

    A lookup ends at most `timeout_seconds` after it was made, in whichever round trip it rides.
    """

    def __init__(
        self, fetch: Fetch, *, timeout_seconds: float, largest_batch: int = 256, most_waiting: int = 10_000
    ) -> None:
        self._fetch = fetch
        self._timeout_seconds = timeout_seconds
        self._largest_batch = largest_batch
        self._most_waiting = most_waiting
        self._queue: deque[Waiting] = deque()
        self._arrived = asyncio.Event()

    async def get(self, key: str) -> bytes | None:
        """Read one value; needs `run` to be running.

        Raises:
            Unavailable: If the store is away or too many lookups wait already.
        """
        if len(self._queue) >= self._most_waiting:
            raise Unavailable("too many lookups wait")
        loop = asyncio.get_running_loop()
        waiting = Waiting(key, loop.time(), loop.create_future())
        self._queue.append(waiting)
        self._arrived.set()
        return await waiting.value

    async def run(self) -> None:
        """Serve lookups until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                await self._serve(self._next_batch())

    def _next_batch(self) -> list[Waiting]:
        size = min(len(self._queue), self._largest_batch)
        taken = [self._queue.popleft() for _ in range(size)]
        return [waiting for waiting in taken if not waiting.value.done()]

    async def _serve(self, batch: list[Waiting]) -> None:
        if not batch:
            return
        remaining = batch[0].since + self._timeout_seconds - asyncio.get_running_loop().time()
        if remaining <= 0:
            _fail(batch, Unavailable("the lookup waited too long"))
            return
        keys = list(dict.fromkeys(waiting.key for waiting in batch))
        try:
            values = await self._fetch(keys, remaining)
        except Unavailable as error:
            _fail(batch, error)
            return
        except BaseException:
            _fail(batch, Unavailable("the lookup was stopped"))
            raise
        _settle(batch, dict(zip(keys, values, strict=True)))


def _settle(batch: list[Waiting], values: dict[str, bytes | None]) -> None:
    for waiting in batch:
        if not waiting.value.done():
            waiting.value.set_result(values[waiting.key])


def _fail(batch: list[Waiting], error: Unavailable) -> None:
    for waiting in batch:
        if not waiting.value.done():
            waiting.value.set_exception(Unavailable(*error.args))
