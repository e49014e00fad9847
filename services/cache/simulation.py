"""Predicts, from a log of questions, how often the cache would have answered them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.cache.semantic import MATCHES_PER_CANDIDATE

Vectors: TypeAlias = Mapping[str, NDArray[np.float32]]
Difference: TypeAlias = Callable[[str, str], str | None]
"""Why two similar questions do not ask the same; None when they do."""

UNSURE = "certainty"
"""The difference of two questions that no check keeps apart."""
PAIRS_KEPT = 200_000


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the log."""

    question: str
    context: tuple[str, ...] = ()
    """Everything that must be equal: tenant, model, system prompt."""
    seconds: float = 0.0
    """When; all zero where the log does not say."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the cache would have done at one threshold."""

    threshold: float
    requests: int
    exact_hits: int
    semantic_hits: int
    vetoes: Mapping[str, int]

    @property
    def hit_rate(self) -> float:
        """Hits of all requests."""
        return (self.exact_hits + self.semantic_hits) / self.requests if self.requests else 0.0


@dataclass(slots=True)
class _Stored:
    """Entries of one context, as the cache would hold them."""

    ends: dict[str, float] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)

    def put(self, question: str, vector: NDArray[np.float32] | None, end: float) -> None:
        """Without a vector it is an answer to the very same question alone."""
        if vector is not None and question not in self.ends:
            self.questions.append(question)
            self.vectors.append(vector)
        self.ends[question] = end

    def nearest(self, vector: NDArray[np.float32], at_least: float, limit: int, now: float) -> Iterator[str]:
        if not self.vectors:
            return
        similarities = np.stack(self.vectors) @ vector
        for index in np.argsort(-similarities)[: 4 * limit]:
            if similarities[index] >= at_least and self.ends[self.questions[index]] >= now:
                yield self.questions[index]


class Simulation:
    """Replays a log; each threshold starts with an empty cache."""

    def __init__(
        self, vectors: Vectors, difference: Difference, *, ttl_seconds: float, candidates: int, longest_question: int
    ) -> None:
        self._vectors = vectors
        self._difference = lru_cache(maxsize=PAIRS_KEPT)(difference)
        self._ttl_seconds = ttl_seconds
        self._candidates = candidates
        self._longest_question = longest_question

    def predict(self, log: Sequence[Asked], threshold: float) -> Prediction:
        """What the cache would have done with the requests, in their order."""
        stored: dict[tuple[str, ...], _Stored] = {}
        hits: Counter[str] = Counter()
        vetoes: Counter[str] = Counter()
        for asked in log:
            held = stored.setdefault(asked.context, _Stored())
            level = self._level(asked, held, threshold, vetoes)
            hits[level] += 1
            if level == "miss":
                held.put(asked.question, self._vectors.get(asked.question), asked.seconds + self._ttl_seconds)
        return Prediction(threshold, len(log), hits["exact"], hits["semantic"], dict(vetoes))

    def _level(self, asked: Asked, held: _Stored, threshold: float, vetoes: Counter[str]) -> str:
        if held.ends.get(asked.question, -1.0) >= asked.seconds:
            return "exact"
        if len(asked.question) > self._longest_question:
            return "miss"
        limit, judged = self._candidates * MATCHES_PER_CANDIDATE, 0
        for candidate in islice(held.nearest(self._vectors[asked.question], threshold, limit, asked.seconds), limit):
            veto = self._difference(asked.question, candidate)
            if veto is None:
                return "semantic"
            vetoes[veto] += 1
            judged += veto == UNSURE  # what a check refuses is not judged
            if judged == self._candidates:
                break
        return "miss"
