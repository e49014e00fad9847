"""Loops that run beside a block and end with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def in_background(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `loops` while the block runs; a loop that fails ends the block with its error."""
    of_the_block: Exception | None = None
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised below, as itself and not as a group of one
            of_the_block = error
        finally:
            for task in tasks:
                task.cancel()
    if of_the_block is not None:
        raise of_the_block
