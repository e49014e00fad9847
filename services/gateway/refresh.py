"""Keeps what is held in memory from growing old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from meshkit.errors import DependencyUnavailable
from meshkit.log import get_logger

RETRY_SECONDS = 0.25
"""Pause after a failed attempt."""

log = get_logger()


async def refreshing(name: str, load: Callable[[], Awaitable[None]], every_seconds: float) -> None:
    """Call `load` at once and then every `every_seconds` until cancelled; sooner after a failure."""
    while True:
        pause = every_seconds
        try:
            await load()
        except DependencyUnavailable as error:
            log.warning("refresh_failed", what=name, error=str(error))
            pause = min(RETRY_SECONDS, every_seconds)
        await asyncio.sleep(pause)
