"""Waits for what is bound to happen soon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

LOOK_SECONDS = 0.02


async def until(holds: Callable[[], Awaitable[bool]], timeout_seconds: float = 20) -> None:
    """Return as soon as an awaited look says yes; TimeoutError when it never does."""
    async with asyncio.timeout(timeout_seconds):
        while True:
            if await holds():
                return
            await asyncio.sleep(LOOK_SECONDS)
