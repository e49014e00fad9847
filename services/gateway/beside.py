"""A task that lives exactly as long as a block of code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")


@asynccontextmanager
async def running_beside(work: Coroutine[Any, Any, Result]) -> AsyncIterator[asyncio.Task[Result]]:
    """Run `work` beside the block; at the block's end it is cancelled, if still running, and waited for.

    Unlike a task group it may hold a `yield` of an async generator: a failure of `work` never interrupts the block,
    it is raised where the block awaits the task.
    """
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        if not task.done():  # else this would be a pause in which a cancel loses what the block has got
            task.cancel()
            # wait, not await: the task's own failure is for whoever awaited it inside the block.
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
