"""What outcomes say about one deployment: the sums that a linear regression needs, and nothing else.

They add up: evidence gathered by several routers is the sum of theirs, and an outcome that is corrected later is a
difference added. They fade: an outcome counts half after a half-life, so that what a provider was like last month does
not outvote what it is like today.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.router.learned.context import FEATURES, Context

Array: TypeAlias = NDArray[np.float64]

WIDTH = len(FEATURES)


@dataclass(slots=True)
class Evidence:
    """Sums over outcomes, each faded by its age."""

    gram: Array
    """Of x xᵀ, x being a context as noughts and ones; so gram[0, 0] is the number of outcomes."""
    moment: Array
    """Of x yᵀ, one column for each thing measured."""
    as_of: float = 0.0
    """Until when it has faded, in seconds of the wall clock."""

    @classmethod
    def none(cls, measures: int) -> Evidence:
        """No outcome of `measures` things measured."""
        return cls(np.zeros((WIDTH, WIDTH)), np.zeros((WIDTH, measures)))

    @property
    def count(self) -> float:
        """How many outcomes it stands for."""
        return float(self.gram[0, 0])

    @property
    def means(self) -> Array:
        """The mean of each thing measured; zeros when there is no outcome."""
        mean: Array = self.moment[0] / max(self.count, 1e-9)
        return mean

    def add(self, context: Context, measured: Sequence[float]) -> None:
        """Take in one outcome."""
        self.gram[np.ix_(context, context)] += 1.0
        self.correct(context, measured)

    def correct(self, context: Context, difference: Sequence[float]) -> None:
        """Change what was measured in an outcome that is already in."""
        self.moment[list(context)] += difference

    def fade(self, now: float, half_life_seconds: float) -> None:
        """Let everything count for less by the time since it last faded."""
        if now <= self.as_of:
            return
        factor = 0.5 ** ((now - self.as_of) / half_life_seconds)
        self.gram *= factor
        self.moment *= factor
        self.as_of = now

    def absorb(self, other: Evidence) -> None:
        """Add what was gathered elsewhere; both must have faded until the same time."""
        self.gram += other.gram
        self.moment += other.moment

    def weights(self, prior: Sequence[float], ridge: float) -> Array:
        """The coefficients of the ridge regression, a column for each thing measured.

        They minimise the squared errors plus `ridge` times the squared distance from the prior, which expects
        `prior` of every context alike.
        """
        expected = np.zeros_like(self.moment)
        expected[0] = prior
        penalty = ridge * np.eye(WIDTH)
        weights: Array = np.linalg.solve(self.gram + penalty, self.moment + ridge * expected).astype(np.float64)
        return weights
