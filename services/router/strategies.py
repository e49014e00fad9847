"""The strategies a tenant, a route or a tier may have."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.router.deployment import Deployment
from services.router.preferences import StrategyName
from services.router.ranking import Choice, Strategy

NEVER_BY_CHANCE = -1.0
"""Score of a weight of 0: below every other."""


def strategies(
    quality_share: float, first_token_seconds: Callable[[Deployment], float], learned: Strategy
) -> Mapping[StrategyName, Strategy]:
    """Every strategy by its name."""
    return {
        StrategyName.CHEAPEST: Cheapest(),
        StrategyName.BALANCED: Balanced(quality_share),
        StrategyName.QUALITY: Quality(),
        StrategyName.LATENCY: Latency(first_token_seconds),
        StrategyName.WEIGHTED: Weighted(),
        StrategyName.LEARNED: learned,
    }


class Cheapest:
    """By what the request would cost; those without a price last."""

    def scores(self, choice: Choice) -> list[float]:
        """The cost, negated."""
        return [-cost for cost in choice.costs]


@dataclass(frozen=True, slots=True)
class Balanced:
    """By quality against cost."""

    quality_share: float

    def scores(self, choice: Choice) -> list[float]:
        """The share of quality less the share of the dearest cost; what has no price counts as the dearest."""
        dearest = max((cost for cost in choice.costs if cost < math.inf), default=0) or 1
        share = self.quality_share
        return [
            share * each.quality - (1 - share) * min(cost / dearest, 1.0)
            for each, cost in zip(choice.candidates, choice.costs, strict=True)
        ]


class Quality:
    """By quality, as the routes file scores it."""

    def scores(self, choice: Choice) -> list[float]:
        """The quality."""
        return [each.quality for each in choice.candidates]


@dataclass(frozen=True, slots=True)
class Latency:
    """By the time to the first token."""

    first_token_seconds: Callable[[Deployment], float]

    def scores(self, choice: Choice) -> list[float]:
        """The time expected, negated."""
        return [-self.first_token_seconds(each) for each in choice.candidates]


@dataclass(frozen=True, slots=True)
class Weighted:
    """By chance: each is first as often as its weight is of the sum, and so on among the rest."""

    chance: Callable[[], float] = random.random

    def scores(self, choice: Choice) -> list[float]:
        """Efraimidis and Spirakis: a chance in [0, 1) to the power of 1 / weight; without weight, last."""
        return [self.chance() ** (1 / each.weight) if each.weight else NEVER_BY_CHANCE for each in choice.candidates]
