"""What can be said of an experiment, and what cannot yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from services.router.experiments.measures import DIRECTIONS, MEASURES, Measure
from services.router.experiments.significance import CONFIDENCE, Contrast, Estimate
from services.router.experiments.tally import Tally
from services.router.experiments.trials import Version

LEAST_GROUPS = 20
"""Fewer say too little of how units differ."""
UNEVEN = 0.001
"""A split less likely than this is no chance."""


class Verdict(StrEnum):
    """What can be said of a difference."""

    NOT_ENOUGH_DATA = "not enough data"
    NO_DIFFERENCE_SHOWN = "no difference shown"
    BETTER = "better"
    WORSE = "worse"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant against the first one, by one measure."""

    version: Version
    measure: Measure
    contrast: Contrast
    lacking: str
    """Why nothing can be said yet; empty when something can."""
    level: float
    """Chance of error that the verdict takes."""

    @property
    def verdict(self) -> Verdict:
        """By the test that holds however often one looks."""
        if self.lacking:
            return Verdict.NOT_ENOUGH_DATA
        if self.contrast.anytime_p_value > self.level:
            return Verdict.NO_DIFFERENCE_SHOWN
        direction = DIRECTIONS.get(self.measure, -1) * self.contrast.difference
        return Verdict.BETTER if direction > 0 else Verdict.WORSE if direction < 0 else Verdict.DIFFERENT


@dataclass(frozen=True, slots=True)
class Findings:
    """An experiment and what is known of it."""

    versions: Sequence[Version]
    tallies: Sequence[Tally]
    """Of each version."""
    shadow: bool = False
    """Whether the second version got copies of the first one's requests."""

    def estimates(self, tally: Tally) -> Mapping[Measure, Estimate]:
        """What is known of a variant, by each measure that anything is known of."""
        known = {each: Estimate.of(tally.counts(each), tally.totals(each)) for each in MEASURES}
        return {measure: estimate for measure, estimate in known.items() if estimate.count}

    def comparisons(self) -> Iterator[Comparison]:
        """Each further variant against the first, by each measure that both tell."""
        first, *others = map(self.estimates, self.tallies)
        # With several variants chance has several chances: what each may err is their part of it.
        level = (1 - CONFIDENCE) / len(others)
        for version, estimates in zip(self.versions[1:], others, strict=True):
            for measure in MEASURES:
                if measure in first and measure in estimates:
                    contrast = Contrast(first[measure], estimates[measure])
                    yield Comparison(version, measure, contrast, self._lacking(contrast), level)

    def split_p_value(self) -> float | None:
        """Probability of requests being split so unevenly, if the weights were kept; None when nothing tells."""
        counts = [tally.counts(Measure.ABANDONED) for tally in self.tallies]
        weights = [version.variant.weight for version in self.versions]
        shares = [Estimate.of(np.sum(counts, axis=0), each) for each in counts]
        if shares[0].groups < LEAST_GROUPS:
            return None
        each = (share.p_value(weight / sum(weights)) for share, weight in zip(shares, weights, strict=True))
        return min(1.0, len(shares) * min(each))

    def conclusion(self) -> str:
        """What the measure that decides says, in a sentence."""
        uneven = self.split_p_value()
        if uneven is not None and uneven < UNEVEN:
            return "The split is not the one that the weights ask for: find out why before trusting any comparison."
        measure = self.versions[0].experiment.measure
        said = [_said(each) for each in self.comparisons() if each.measure is measure]
        return "; ".join(said) if said else f"Not enough data: nothing is known of {measure} yet."

    def _lacking(self, contrast: Contrast) -> str:
        least, both = self.versions[0].experiment.least_requests, (contrast.first, contrast.other)
        requests, groups = (min(each.count for each in both), min(each.groups for each in both))
        if requests < least:
            return f"{requests} requests of the variant with fewer tell it: {least} are asked for"
        if groups < LEAST_GROUPS:
            return f"they come from too few units: {groups} groups of them, {LEAST_GROUPS} are needed"
        return ""


def _said(comparison: Comparison) -> str:
    names = f"{comparison.version.variant.name} by {comparison.measure}"
    if comparison.lacking:
        return f"{names}: {comparison.verdict} ({comparison.lacking})"
    low, high = comparison.contrast.anytime_interval
    return f"{names}: {comparison.verdict} ({comparison.contrast.difference:+.4g}, {low:+.4g} to {high:+.4g})"
