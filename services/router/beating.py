"""What is done again and again beside the requests, and a last time at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Beat = Callable[[], Awaitable[None]]
"""Ends by itself, at deadlines of its own."""


@asynccontextmanager
async def beating(every_seconds: float, *beats: Beat) -> AsyncIterator[None]:
    """Call `beats` one after the other while the block runs, and once more at its end."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_run(every_seconds, beats, over))
        try:
            yield
        finally:
            over.set()


async def _run(every_seconds: float, beats: tuple[Beat, ...], over: asyncio.Event) -> None:
    ending = False
    while not ending:
        ending = over.is_set()
        for beat in beats:
            await beat()
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), every_seconds)
