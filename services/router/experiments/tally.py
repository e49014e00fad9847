"""What is known of one variant: for each group of units and each measure, how often it was told, and the sum."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.router.experiments.measures import MEASURES, Measure
from services.router.experiments.trials import GROUPS

Array: TypeAlias = NDArray[np.float64]

SHAPE = hashlib.sha256(repr((MEASURES, GROUPS)).encode()).hexdigest()[:12]
"""Changes with the measures: sums over others mean something else."""
_SIZE = (2, len(MEASURES), GROUPS)
_PLACES = {measure: place for place, measure in enumerate(MEASURES)}


@dataclass(slots=True)
class Tally:
    """Sums that add up, whoever gathered them."""

    sums: Array = field(default_factory=lambda: np.zeros(_SIZE))
    """Counts, then totals; of each measure, of each group."""
    left_out: float = 0.0
    """Requests that were no fair comparison."""
    since: float = math.inf
    """When it was begun, in seconds since the epoch."""

    def add(self, group: int, measure: Measure, value: float) -> None:
        """Take in what one request told."""
        self.sums[:, _PLACES[measure], group] += 1.0, value

    def correct(self, group: int, measure: Measure, difference: float) -> None:
        """Change what was told before."""
        self.sums[1, _PLACES[measure], group] += difference

    def absorb(self, other: Tally) -> None:
        """Add what was gathered elsewhere."""
        self.sums += other.sums
        self.left_out += other.left_out
        self.since = min(self.since, other.since)

    def counts(self, measure: Measure) -> Array:
        """How many requests of each group told it."""
        counts: Array = self.sums[0, _PLACES[measure]]
        return counts

    def totals(self, measure: Measure) -> Array:
        """What those of each group told, added up."""
        totals: Array = self.sums[1, _PLACES[measure]]
        return totals

    def encoded(self) -> bytes:
        """Doubles, for a store; readable where SHAPE is the same."""
        numbers: Array = np.concatenate([np.array([self.left_out, self.since]), self.sums.ravel()]).astype("<f8")
        return numbers.tobytes()

    @classmethod
    def decoded(cls, stored: bytes) -> Tally:
        """Read what `encoded` wrote."""
        numbers = np.frombuffer(stored, "<f8").copy()
        return cls(numbers[2:].reshape(_SIZE), float(numbers[0]), float(numbers[1]))
