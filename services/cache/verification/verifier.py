"""Decides how sure it is that two similar questions ask the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from itertools import compress

from meshkit.log import get_logger
from services.cache.errorbound import ErrorBound, Outcome
from services.cache.verification.alignment import TokenVectors, alignment
from services.cache.verification.clauses import quotes_meet
from services.cache.verification.features import PairReader
from services.cache.verification.forest import Forest
from services.cache.verification.polarity import opposites_meet
from services.cache.verification.quantities import counts_exchanged, numbers_contradict
from services.cache.verification.reader import Reader
from services.cache.verification.reading import Reading
from services.cache.verification.roles import roles_swapped
from services.cache.verification.weighing import Weighing
from services.cache.verification.wording import Features
from wordvectors import WordVectors

READINGS_KEPT = 256
SAME_WORDS = 1.0
"""What the very same words are taken for: of short ones the forest is not sure."""
log = get_logger()


def _languages_differ(left: Reading, right: Reading) -> bool:
    return left.language != right.language


def _signs_differ(left: Reading, right: Reading) -> bool:
    mine, yours = set(left.operators), set(right.operators)
    return not (mine <= yours or yours <= mine)


def _quotes_differ(left: Reading, right: Reading) -> bool:
    return bool(left.quoted) and bool(right.quoted) and not quotes_meet(left, right)


REFUSALS: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("language", _languages_differ),
    ("quantity", numbers_contradict),
    ("sign", _signs_differ),
    ("quote", _quotes_differ),
    ("opposite", opposites_meet),
    ("role", roles_swapped),
    ("role", counts_exchanged),
)
"""Differences that no similarity outweighs; the name is what the metrics say. Cheap: no accurate vector is needed."""


def refusal(left: Reading, right: Reading) -> str | None:
    """The name of the first difference that rules a hit out."""
    return next((name for name, differs in REFUSALS if differs(left, right)), None)


@dataclass(frozen=True, slots=True)
class Phrased:
    """A question, and what the embedding model sees in its tokens."""

    text: str
    tokens: TokenVectors


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored question that may ask the same."""

    phrased: Phrased
    similarity: float
    """Cosine of the accurate vectors."""
    outline: float
    """Cosine of the sketches."""


class Verifier:
    """Refuses what cannot ask the same, and says of the rest how likely it does."""

    def __init__(self) -> None:
        self.weighing = Weighing.packaged()
        self._reader = Reader()
        self._read = lru_cache(maxsize=READINGS_KEPT)(self._reader.read)
        self._pairs = PairReader(WordVectors.packaged())
        self._loading = asyncio.Lock()
        self._loaded = False

    @cached_property
    def _forest(self) -> Forest:
        return Forest.packaged()

    async def load(self) -> None:
        """Load dictionaries and weights beside the event loop, 0.4 s, unless they are."""
        if self._loaded:
            return
        async with self._loading:
            if not self._loaded:
                await asyncio.to_thread(self._reader.load)
                await asyncio.to_thread(lambda: self._forest)
                self._loaded = True
                log.info("verifier_loaded")

    def refusal(self, asked: str, stored: str) -> str | None:
        """Why an answer to the stored question cannot be one to the question asked; None when it may be."""
        return refusal(self._read(asked), self._read(stored))

    def estimates(self, asked: Phrased, candidates: Sequence[Candidate]) -> list[float]:
        """How likely the forest finds it that each candidate asks the same, from 0 to 1.

        One whose tokens cannot be compared does not.
        """
        comparable = [asked.tokens.is_comparable(candidate.phrased.tokens) for candidate in candidates]
        measured = [self._features(asked, candidate) for candidate in compress(candidates, comparable)]
        found = iter(self._forest.estimates(measured))
        estimates = [next(found) if may_be else 0.0 for may_be in comparable]
        return [
            SAME_WORDS if may_be and candidate.phrased.text == asked.text else estimate
            for may_be, estimate, candidate in zip(comparable, estimates, candidates, strict=True)
        ]

    def _features(self, asked: Phrased, candidate: Candidate) -> Features:
        stored = candidate.phrased
        words = self._pairs.features(
            self._read(asked.text), self._read(stored.text), similarity=candidate.similarity, outline=candidate.outline
        )
        return {**words, **alignment(asked.tokens, stored.tokens)}


def calibrated(*, target: float) -> ErrorBound:
    """The bound on wrong hits that judged pairs support, on topics that neither forest nor cross-encoder had seen."""
    judged = json.loads((files(__package__) / "weights" / "calibration.json").read_text())
    outcomes = [Outcome(certainty, right) for certainty, right in judged["outcomes"]]
    return ErrorBound(outcomes, target=target, design_effect=judged["design_effect"])
