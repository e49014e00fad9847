"""Loops that run beside a block and end with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def in_background(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `loops` while the block runs, then cancel them; a loop that fails ends the block with its error.

    A lone failure, of a loop or of the block, leaves as itself, and only several at once as a group.
    """
    lone: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failures:
        if len(failures.exceptions) > 1:
            raise
        lone = failures.exceptions[0]
    if lone is not None:
        raise lone  # here and not above, where the group would become its context
