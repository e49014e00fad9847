"""Decides how sure it is that two similar questions ask the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from importlib.resources import files

from services.cache.errorbound import Outcome
from services.cache.verification.features import PairReader
from services.cache.verification.forest import Forest
from services.cache.verification.polarity import opposites_meet
from services.cache.verification.reader import Reader
from services.cache.verification.reading import Reading
from services.cache.verification.roles import roles_swapped
from wordvectors import WordVectors

READINGS_KEPT = 256


def _languages_differ(left: Reading, right: Reading) -> bool:
    return left.language != right.language


def _numbers_differ(left: Reading, right: Reading) -> bool:
    mine, yours = ({q.value for q in reading.quantities if q.value != "1"} for reading in (left, right))
    return mine != yours


def _signs_differ(left: Reading, right: Reading) -> bool:
    return left.operators != right.operators


def _quotes_differ(left: Reading, right: Reading) -> bool:
    return bool(left.quoted) and bool(right.quoted) and left.quoted.isdisjoint(right.quoted)


REFUSALS: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("language", _languages_differ),
    ("quantity", _numbers_differ),
    ("sign", _signs_differ),
    ("quote", _quotes_differ),
    ("opposite", opposites_meet),
    ("role", roles_swapped),
)
"""Differences that no similarity outweighs; the name is what the metrics say. Cheap: no accurate vector is needed."""


def refusal(left: Reading, right: Reading) -> str | None:
    """The name of the first difference that rules a hit out."""
    return next((name for name, differs in REFUSALS if differs(left, right)), None)


class Verifier:
    """Refuses what cannot ask the same, and says of the rest how sure it is."""

    def __init__(self) -> None:
        self._reader = Reader()
        self._read = lru_cache(maxsize=READINGS_KEPT)(self._reader.read)
        self._pairs = PairReader(WordVectors.packaged())
        self._loading = asyncio.Lock()
        self._loaded = False

    @cached_property
    def _forest(self) -> Forest:
        return Forest.packaged()

    async def load(self) -> None:
        """Load dictionaries and weights on first use, beside the event loop."""
        async with self._loading:
            if not self._loaded:
                await asyncio.to_thread(self._reader.load)
                await asyncio.to_thread(lambda: self._forest)
                self._loaded = True

    def refusal(self, asked: str, stored: str) -> str | None:
        """Why an answer to the stored question cannot be one to the question asked; None when it may be."""
        return refusal(self._read(asked), self._read(stored))

    def certainty(self, asked: str, stored: str, *, similarity: float, outline: float) -> float:
        """How sure it is that both ask the same, from 0 to 1; `outline` is the cosine of the sketches."""
        left, right = self._read(asked), self._read(stored)
        return self._forest.certainty(self._pairs.features(left, right, similarity=similarity, outline=outline))


def calibration() -> Iterable[Outcome]:
    """Judged hits on topics that the forest had not seen."""
    judged = json.loads((files(__package__) / "weights" / "calibration.json").read_text())
    return [Outcome(certainty, right) for certainty, right in judged]
