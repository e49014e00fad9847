"""What is known of one deployment: its outcomes, and what people said of its answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from services.router.learned.context import FEATURES
from services.router.learned.evidence import WIDTH, Array, Evidence
from services.router.learned.rewards import MEASURES

SHAPE = hashlib.sha256(repr((FEATURES, MEASURES)).encode()).hexdigest()[:12]
"""Changes with the features and measures: sums over others mean something else."""


@dataclass(slots=True)
class Arm:
    """Evidence of one deployment; adds up and fades as evidence does."""

    outcomes: Evidence = field(default_factory=lambda: Evidence.none(len(MEASURES)))
    feedback: Evidence = field(default_factory=lambda: Evidence.none(1))

    def fade(self, now: float, half_life_seconds: float) -> None:
        """Let everything count for less."""
        for evidence in self._evidence():
            evidence.fade(now, half_life_seconds)

    def absorb(self, other: Arm) -> None:
        """Add what was gathered elsewhere; both must have faded until the same time."""
        for mine, theirs in zip(self._evidence(), other._evidence(), strict=True):
            mine.absorb(theirs)

    def encoded(self) -> bytes:
        """Doubles, for a store; readable where SHAPE is the same."""
        sums: list[Array] = [part.ravel() for each in self._evidence() for part in (each.gram, each.moment)]
        numbers: Array = np.concatenate([np.array([self.outcomes.as_of]), *sums]).astype("<f8")
        return numbers.tobytes()

    @classmethod
    def decoded(cls, stored: bytes) -> Arm:
        """Read what `encoded` wrote."""
        numbers, arm, at = np.frombuffer(stored, "<f8").copy(), cls(), 1
        for evidence in arm._evidence():
            evidence.as_of = float(numbers[0])
            for sums in (evidence.gram, evidence.moment):
                sums[:] = numbers[at : at + sums.size].reshape(WIDTH, -1)
                at += sums.size
        return arm

    def _evidence(self) -> Iterator[Evidence]:
        yield self.outcomes
        yield self.feedback
