"""How many answers one credential may have at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.router.providers.dispatch import current_dispatch
from services.router.providers.provider import FailureKind, ProviderFailure

MOST_WAITING = 64


class Gate:
    """Lets so many through at once; a few others wait their turn, for a while."""

    def __init__(self, places: int, wait_seconds: float) -> None:
        self._places = asyncio.Semaphore(places)
        self._wait_seconds = wait_seconds
        self._waiting = 0

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Hold a place for the block.

        Raises:
            ProviderFailure: BUSY, if none becomes free in time.
        """
        await self._pass()
        try:
            yield
        finally:
            self._places.release()

    async def _pass(self) -> None:
        if self._places.locked() and (self._waiting >= MOST_WAITING or not self._wait_seconds):
            raise _busy(self._wait_seconds)
        self._waiting += 1
        current_dispatch().held = True
        try:
            async with asyncio.timeout(self._wait_seconds or None):
                await self._places.acquire()
        except TimeoutError:
            raise _busy(self._wait_seconds) from None
        finally:
            self._waiting -= 1


def _busy(seconds: float) -> ProviderFailure:
    message = f"its credential has no answer to spare, after a wait of {seconds:.3g} s"
    return ProviderFailure(FailureKind.BUSY, message, retry_after_seconds=max(seconds, 1.0))
