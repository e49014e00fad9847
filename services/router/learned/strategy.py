"""The strategy `learned`: by the reward expected, the first by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from services.router.learned.bandit import Bandit, Gamble
from services.router.learned.context import Asked, Context, context_of
from services.router.ranking import PRICED_TOKENS, Choice, Demand

FIRST = 2.0
"""Score of the one picked; no reward is greater than 1."""


@dataclass(frozen=True, slots=True)
class Stake:
    """What was known when a deployment was picked for a request."""

    context: Context
    gamble: Gamble
    dearest_micros: float
    """What the dearest candidate was expected to cost; 0 without prices."""


@dataclass(frozen=True, slots=True)
class Learned:
    """Scores by what the bandit expects, and remembers its picks for as long as their requests live."""

    bandit: Bandit
    stakes: WeakKeyDictionary[Demand, Stake] = field(default_factory=WeakKeyDictionary)

    def scores(self, choice: Choice) -> Sequence[float]:
        """The rewards expected; that of the one picked is raised above all.

        Only candidates of the first group can be picked, because the others cannot come first.
        """
        if not choice.candidates:
            return []
        demand, bandit = choice.demand, self.bandit
        context = context_of(demand.prompt, Asked(demand.needs, demand.limits.data_class, demand.caller.tier or "none"))
        gamble = bandit.choose(_first_group(choice), context)
        dearest = max((cost for cost in choice.costs if cost < math.inf), default=0.0) / PRICED_TOKENS
        self.stakes[demand] = Stake(context, gamble, dearest)
        return [
            FIRST if each.name == gamble.first else bandit.expected(each.name, context) for each in choice.candidates
        ]


def _first_group(choice: Choice) -> list[str]:
    first = min(choice.groups, default=0)
    groups = choice.groups or [first] * len(choice.candidates)
    return [each.name for each, group in zip(choice.candidates, groups, strict=True) if group == first]
