"""Removes expired semantic answers from time to time."""

from __future__ import annotations

import asyncio

from meshkit.log import get_logger
from services.cache.dependency import Unavailable
from services.cache.metrics import SWEPT
from services.cache.semantic import SemanticCache

log = get_logger()


class Sweep:
    """One removal per interval; a store that is away is swept next time."""

    def __init__(self, semantic: SemanticCache, *, every_seconds: float) -> None:
        self._semantic = semantic
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self._every_seconds)
            await self._once()

    async def _once(self) -> None:
        try:
            removed = await self._semantic.forget_expired()
        except Unavailable:
            return
        if removed:
            SWEPT.inc(removed)
            log.info("expired_answers_removed", count=removed)
