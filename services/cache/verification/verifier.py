"""Decides whether two similar questions ask the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache

from services.cache.verification.asking import asks_differ
from services.cache.verification.names import names_differ
from services.cache.verification.polarity import (
    degrees_differ,
    modality_differs,
    negations_differ,
    opposites_meet,
    persons_differ,
    relations_differ,
    times_differ,
)
from services.cache.verification.quantities import quantities_differ
from services.cache.verification.reader import Reader
from services.cache.verification.reading import Reading
from services.cache.verification.roles import roles_swapped
from services.cache.verification.wording import wording_differs

READINGS_KEPT = 256

CHECKS: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("quantity", quantities_differ),
    ("negation", negations_differ),
    ("relation", relations_differ),
    ("opposite", opposites_meet),
    ("name", names_differ),
    ("asking", asks_differ),
    ("modality", modality_differs),
    ("time", times_differ),
    ("person", persons_differ),
    ("degree", degrees_differ),
    ("role", roles_swapped),
    ("wording", wording_differs),
)
"""Each finds one way in which similar questions differ in meaning; the name is what the metrics say."""


class Verifier:
    """Refuses a similar question unless every check finds it to ask the same."""

    def __init__(self) -> None:
        self._reader = Reader()
        self._read = lru_cache(maxsize=READINGS_KEPT)(self._reader.read)
        self._loading = asyncio.Lock()
        self._loaded = False

    async def veto(self, asked: str, stored: str) -> str | None:
        """The name of the first check that tells the questions apart; None when they ask the same."""
        await self._load()
        return self.difference(asked, stored)

    def difference(self, asked: str, stored: str) -> str | None:
        """As `veto`, for callers that may wait while the dictionaries load."""
        left, right = self._read(asked), self._read(stored)
        if left.language != right.language:
            return "language"
        return next((name for name, differs in CHECKS if differs(left, right)), None)

    async def _load(self) -> None:
        """Load the dictionaries on first use, beside the event loop."""
        async with self._loading:
            if not self._loaded:
                await asyncio.to_thread(self._reader.load)
                self._loaded = True
