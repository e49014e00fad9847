"""Whether two variants differ: by a test for looking once, and by one for looking as often as one likes.

Requests of one unit resemble each other, and whole units are assigned to a variant; so units stay together: they are
hashed into groups, and a mean is the ratio of two sums over groups, its variance that of the groups around it (Cochran,
"Sampling Techniques", 1977, 6.3). With a unit for each request this comes to the usual z-test of shares and to Welch's
t of means.

The test for repeated looks is the mixture sequential probability ratio test (Johari, Pekelis, Walsh, "Always Valid
Inference", 2015) for differences that are normal around 0, as wide as what is usually called a small effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from services.router.experiments.student import quantile, two_sided
from services.router.experiments.tally import Array

CONFIDENCE = 0.95
SMALL_EFFECT = 0.2
"""In standard deviations of one request (Cohen)."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over requests, and how sure it is."""

    count: int
    """Requests."""
    groups: int
    """Groups of units they came from."""
    mean: float
    variance: float
    """Of the mean."""

    @classmethod
    def of(cls, counts: Array, totals: Array) -> Estimate:
        """The mean of what was counted group by group."""
        count, groups = float(counts.sum()), int(np.count_nonzero(counts))
        mean = float(totals.sum()) / max(count, 1.0)
        if groups < 2:
            return cls(round(count), groups, mean, math.inf)
        deviations = totals - mean * counts
        variance = groups / (groups - 1) * float(deviations @ deviations) / count**2
        return cls(round(count), groups, mean, variance)

    @property
    def interval(self) -> Interval | None:
        """Holds the true mean with 95 % confidence; None when nothing tells."""
        if self.groups < 2:
            return None
        half = quantile(CONFIDENCE, self.groups - 1) * math.sqrt(self.variance)
        return self.mean - half, self.mean + half

    def p_value(self, expected: float) -> float:
        """Probability of a mean so far from `expected` by chance."""
        return _p_value(self.mean - expected, self.variance, self.groups - 1)


@dataclass(frozen=True, slots=True)
class Contrast:
    """One mean less another."""

    first: Estimate
    other: Estimate

    @property
    def difference(self) -> float:
        """Of the means."""
        return self.other.mean - self.first.mean

    @property
    def variance(self) -> float:
        """Of the difference."""
        return self.first.variance + self.other.variance

    @property
    def freedom(self) -> float:
        """Degrees of freedom, by Welch and Satterthwaite."""
        parts = ((each.variance**2, each.groups - 1) for each in (self.first, self.other))
        spread = sum(square / freedom for square, freedom in parts)
        return self.variance**2 / spread if spread else float(self.first.groups + self.other.groups - 2)

    @property
    def p_value(self) -> float:
        """Probability of such a difference by chance, for one look."""
        return _p_value(self.difference, self.variance, self.freedom)

    @property
    def interval(self) -> Interval:
        """Holds the true difference with 95 % confidence, for one look."""
        return self._around(quantile(CONFIDENCE, self.freedom) * math.sqrt(self.variance))

    @property
    def anytime_p_value(self) -> float:
        """Probability of ever seeing such a difference by chance, however often one looks."""
        if not self.variance:
            return float(self.difference == 0)
        total = self.variance + self._mixture
        evidence = self.difference**2 * self._mixture / (2 * self.variance * total)
        return math.exp(min(0.0, 0.5 * math.log(total / self.variance) - evidence))

    @property
    def anytime_interval(self) -> Interval:
        """Holds the true difference at all looks together with 95 % confidence."""
        if not self.variance:
            return self._around(0.0)
        total = self.variance + self._mixture
        bound = 0.5 * math.log(total / self.variance) - math.log(1 - CONFIDENCE)
        return self._around(math.sqrt(2 * self.variance * total / self._mixture * bound))

    @property
    def _mixture(self) -> float:
        """Variance of the differences that are looked for."""
        of_one = sum(each.variance * each.count for each in (self.first, self.other)) / 2
        return SMALL_EFFECT**2 * of_one

    def _around(self, half: float) -> Interval:
        return self.difference - half, self.difference + half


def _p_value(difference: float, variance: float, freedom: float) -> float:
    if not variance:
        return float(difference == 0)
    return two_sided(difference / math.sqrt(variance), freedom)
