"""Removes semantic answers from time to time: those expired, and those that save least where there are too many."""

from __future__ import annotations

import asyncio

from meshkit.dependency import Unavailable
from meshkit.log import get_logger
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
            expired = await self._semantic.forget_expired()
            surplus = await self._semantic.keep_the_best()
        except Unavailable:
            return
        for reason, removed in (("expired", expired), ("surplus", surplus)):
            if removed:
                SWEPT.labels(reason).inc(removed)
                log.info("answers_removed", reason=reason, count=removed)
