"""One answer heard by several callers while it is spoken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

FURTHEST_AHEAD = 64
"""Pieces that an answer may be ahead of its quickest listener: callers who are slow, all of them, slow the provider."""

Item = TypeVar("Item")


class Broadcast(Generic[Item]):
    """Items that come once and go to everybody who listens, from the first one on.

    The source runs as long as somebody listens, whoever began it. What it raises, everybody hears.
    """

    def __init__(self, source: AsyncGenerator[Item, None], begun: Callable[[], None]) -> None:
        """`begun` is called with the first item; a source that fails before it has nothing to share."""
        self._source = source
        self._begun = begun
        self._said: list[Item] = []
        self._error: Exception | None = None
        self.over = False
        """Whether everything has been said, or nothing more will be."""
        self.ended = False
        """Whether nobody listens any longer, so that it is given up; who comes now comes too late."""
        self._listeners = 0
        self._quickest = 0
        """Items that the quickest listener has taken."""
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def listen(self) -> AsyncGenerator[Item, None]:
        """Every item from the first one; the last listener who leaves ends the source and waits until it has ended."""
        self._listeners += 1
        # The first step of the task comes before any of ours: it has begun whenever we may be cancelled.
        self._task = self._task or asyncio.create_task(self._speak())
        try:
            heard = 0
            while heard < len(self._said) or not self.over:
                if heard == len(self._said):
                    await self._news.wait()
                    continue
                yield self._said[heard]
                heard += 1
                self._take(heard)
            if self._error is not None:
                raise self._error
        finally:
            self._listeners -= 1
            if not self._listeners:
                self.ended = True
                self._task.cancel()
                await asyncio.wait([self._task])

    async def _speak(self) -> None:
        try:
            async with aclosing(self._source) as items:
                async for item in items:
                    self._said.append(item)
                    if len(self._said) == 1:
                        self._begun()
                    self._tell()
                    await self._room()
        except Exception as error:  # noqa: BLE001 - raised again where it is heard
            self._error = error
        finally:
            self.over = True
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _take(self, heard: int) -> None:
        if heard > self._quickest:
            self._quickest = heard
            self._taken.set()

    async def _room(self) -> None:
        while len(self._said) - self._quickest > FURTHEST_AHEAD:
            self._taken.clear()
            await self._taken.wait()
