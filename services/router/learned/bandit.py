"""A contextual bandit: rank by the reward expected, and leave a known chance for what may be better than expected.

The chances are those of SquareCB (Foster and Rakhlin, "Beyond UCB: Optimal and Efficient Contextual Bandits with
Regression Oracles", ICML 2020): with K candidates, of which b is expected to be best, each other one a is asked first
with probability 1 / (K + γ (r_b - r_a)), and b with the rest. γ grows with the root of what is known, so that worse
candidates are tried ever more rarely, but never never. The expectations are ridge regressions, one per deployment.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from services.router.deployment import Strict
from services.router.learned.arm import Arm
from services.router.learned.context import Context
from services.router.learned.evidence import WIDTH
from services.router.learned.rewards import Measured, Worth

NEUTRAL_QUALITY = 0.5


class Learning(Strict):
    """How fast to learn, and how fast to forget; the section `learning` of the routes file."""

    worth: Worth = Worth()
    """What a reward is made of."""
    exploration: float = Field(default=20.0, gt=0, le=1e6)
    """γ is this times the root of the number of outcomes; more explores less."""
    ridge: float = Field(default=5.0, gt=0, le=1e6)
    """How much the prior weighs; a context has some seven features, so 7 weighs one outcome."""
    half_life_seconds: float = Field(default=7 * 86_400.0, gt=0)
    """After this time an outcome counts half."""


@dataclass(frozen=True, slots=True)
class Gamble:
    """Who is asked first, and how that came about."""

    first: str
    chances: Mapping[str, float]
    """The probability each candidate had to be asked first."""


class Bandit:
    """Learns which deployment suits which context. Asks no clock and does no I/O."""

    def __init__(self, learning: Learning, chance: random.Random) -> None:
        self.learning = learning
        self.arms: dict[str, Arm] = {}
        self.news: dict[str, Arm] = {}
        """What was taken in since it was last told to others."""
        self._chance = chance
        self._stale: set[str] = set()
        self._weights: dict[str, list[float]] = {}
        """By deployment, what each feature adds to the reward expected."""
        self._typical = [0.0] * WIDTH
        self._expected: dict[Context, dict[str, float]] = {}
        """What was worked out since the last fit: contexts repeat."""

    def choose(self, candidates: Sequence[str], context: Context) -> Gamble:
        """Pick among candidates by the chances of SquareCB."""
        odds = chances({name: self.expected(name, context) for name in candidates}, self.gamma(candidates))
        first = self._chance.choices(list(odds), list(odds.values()))[0]
        return Gamble(first, odds)

    def expected(self, name: str, context: Context) -> float:
        """The reward expected of a deployment; one nobody has tried is expected to be as good as the others."""
        known = self._expected.setdefault(context, {})
        if name not in known:
            weights = self.weights(name)
            known[name] = math.fsum(weights[index] for index in context)
        return known[name]

    def weights(self, name: str) -> Sequence[float]:
        """What each feature adds to the reward expected of a deployment."""
        return self._weights.get(name, self._typical)

    def learn(self, name: str, context: Context, measured: Measured, now: float) -> None:
        """Take in how an answer went; like all that is taken in, it counts from the next `fit`."""
        for arm in self._books(name, now):
            arm.outcomes.add(context, measured)

    def rate(self, name: str, context: Context, quality: float, now: float) -> None:
        """Take in feedback on an answer."""
        for arm in self._books(name, now):
            arm.feedback.add(context, (quality,))

    def rerate(self, name: str, context: Context, difference: float, now: float) -> None:
        """Change feedback that was taken in before by `difference`."""
        for arm in self._books(name, now):
            arm.feedback.correct(context, (difference,))

    def take_news(self) -> dict[str, Arm]:
        """What was taken in since the last time."""
        news, self.news = self.news, {}
        return news

    def return_news(self, news: Mapping[str, Arm], now: float) -> None:
        """Nobody could be told these: they are still news."""
        for name, arm in news.items():
            self._added(self.news, name, arm, now)

    def update(self, name: str, told: Arm, now: float) -> None:
        """Take what all routers together know of a deployment, and add what they were not told yet."""
        told.fade(now, self.learning.half_life_seconds)
        self.arms[name] = told
        if name in self.news:
            self._added(self.arms, name, self.news[name], now)
        self._stale.add(name)

    def adopt(self, learning: Learning) -> None:
        """Learn in another way from now on; what was taken in stays."""
        self.learning = learning
        self._stale.update(self.arms)

    def fit(self) -> None:
        """Draw the conclusions from all that was taken in."""
        prior = self._prior()
        self._expected.clear()
        self._typical = self._combined(Arm(), prior)
        for name in self._stale:
            self._weights[name] = self._combined(self.arms[name], prior)
        self._stale.clear()

    def gamma(self, candidates: Iterable[str]) -> float:
        """How strongly the better of these are preferred."""
        known = math.fsum(self.arms[name].outcomes.count for name in candidates if name in self.arms)
        return self.learning.exploration * math.sqrt(known)

    def _books(self, name: str, now: float) -> list[Arm]:
        """Where something new of a deployment is entered."""
        self._stale.add(name)
        books = [book.setdefault(name, Arm()) for book in (self.arms, self.news)]
        for arm in books:
            arm.fade(now, self.learning.half_life_seconds)
        return books

    def _added(self, book: dict[str, Arm], name: str, arm: Arm, now: float) -> None:
        mine = book.setdefault(name, Arm())
        for each in (mine, arm):
            each.fade(now, self.learning.half_life_seconds)
        mine.absorb(arm)

    def _prior(self) -> tuple[list[float], float]:
        """What to expect of a deployment without evidence: what the others are like, and neutral quality."""
        known = [arm.outcomes for arm in self.arms.values() if arm.outcomes.count > 0]
        if not known:
            return [1.0, 0.0, 0.0], NEUTRAL_QUALITY
        return np.mean([each.means for each in known], axis=0).tolist(), NEUTRAL_QUALITY

    def _combined(self, arm: Arm, prior: tuple[list[float], float]) -> list[float]:
        """What each feature adds to the reward, from what it adds to each measure."""
        worth, ridge = self.learning.worth, self.learning.ridge
        measures = arm.outcomes.weights(prior[0], ridge)
        quality = arm.feedback.weights([prior[1]], ridge)[:, 0]
        return [worth.reward(tuple(row), rated) for row, rated in zip(measures.tolist(), quality.tolist(), strict=True)]


def chances(rewards: Mapping[str, float], gamma: float) -> dict[str, float]:
    """The probability of each candidate to be asked first; they sum to 1."""
    best = max(rewards, key=rewards.__getitem__)
    size = len(rewards)
    each = {name: 1 / (size + gamma * (rewards[best] - reward)) for name, reward in rewards.items()}
    each[best] = 1 - math.fsum(chance for name, chance in each.items() if name != best)
    return each
