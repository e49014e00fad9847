"""A world where it is known how good every deployment is for every prompt: the bandit is judged against it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist, fmean
from typing import TypeAlias

from services.router.learned.bandit import NEUTRAL_QUALITY, Bandit, Learning
from services.router.learned.context import Context, indices, names
from services.router.learned.estimation import Logged
from services.router.learned.rewards import Measured, Outcome, Worth
from services.router.learned.strategy import Learned

MIX = (
    (("length:short", 5), ("length:medium", 3), ("length:long", 1)),
    (("language:russian", 6), ("language:english", 3), ("language:other", 1)),
    (("kind:question", 4), ("kind:other", 3), ("kind:code", 2), ("kind:maths", 1)),
    (("turn:first", 2), ("turn:later", 1)),
    (("data:public", 1), ("data:internal", 1)),
    (("tier:free", 3), ("tier:pro", 2), ("tier:enterprise", 1)),
)
"""How often what is asked, group by group."""
TOKENS = {"length:short": 60, "length:medium": 500, "length:long": 4000}
OUTPUT_TOKENS = 300
OUTCOME_DELAY = 5
FEEDBACK_DELAY = 50
FIT_EVERY = 20
"""In requests: outcomes and feedback are known later, and conclusions are drawn now and then."""
RATED_SHARE = 0.1

_PARTS = [(part + 0.5) / 100 for part in range(100)]
SLOWER = [math.exp(NormalDist(-0.08, 0.4).inv_cdf(part)) for part in _PARTS]
DEARER = [0.7 + 0.6 * part for part in _PARTS]
"""How answers differ from the usual one in time and in cost: a hundred equally likely cases."""


@dataclass(frozen=True, slots=True)
class Truth:
    """How one deployment really is."""

    price: float
    """Micro-units for a token, read or written."""
    success: float
    seconds: float
    quality: float
    suits: dict[str, float] = field(default_factory=dict)
    """What features add to its quality; "a+b" only where both hold, which no linear model can say."""
    seconds_long: float = 0.0
    """What long prompts add to its time."""


DEPLOYMENTS = {
    "local/small": Truth(0.0, 0.995, 4, 0.45, {"kind:maths": -0.2, "kind:code": -0.2, "length:long": -0.1}, 8),
    "yandex/lite": Truth(0.2, 0.99, 2, 0.45, {"language:russian": 0.25, "kind:code": -0.2, "kind:maths": -0.2}, 2),
    "gigachat/pro": Truth(
        1.5, 0.985, 3, 0.55, {"language:russian": 0.3, "kind:code": -0.1, "language:russian+length:long": 0.1}, 3
    ),
    "cloudru/coder": Truth(
        0.8, 0.98, 5, 0.5, {"kind:code": 0.4, "kind:maths": 0.35, "language:russian+kind:other": -0.2}, 4
    ),
    "openai/large": Truth(5.0, 0.98, 6, 0.85, {"language:russian": -0.05, "kind:maths": 0.1, "kind:code": 0.05}, 6),
}
NAMES = tuple(DEPLOYMENTS)
CHEAPEST = min(NAMES, key=lambda name: DEPLOYMENTS[name].price)


class World:
    """Prompts, outcomes and feedback by chance; the same seed tells the same story."""

    def __init__(self, seed: int, *, breaks_at: int | None = None, worth: Worth | None = None) -> None:
        self.chance = random.Random(seed)
        self.breaks_at = breaks_at
        """From this request on the coder fails every second time."""
        self.worth = worth or Worth()
        self.expected = lru_cache(maxsize=None)(self._expected)

    def prompt(self) -> Context:
        """The next prompt's context."""
        picked = [self.chance.choices([name for name, _ in group], [often for _, often in group])[0] for group in MIX]
        return indices(["always", *picked])

    def outcome(self, name: str, context: Context, turn: int) -> Outcome:
        """How an answer goes."""
        seconds = self._seconds(name, context) * self.chance.choice(SLOWER)
        success = self.chance.random() < self._success(name, turn)
        cost = self._cost(name, context) * self.chance.choice(DEARER)
        return Outcome(success, seconds, round(cost) if success else 0)

    def measured(self, name: str, context: Context, turn: int) -> Measured:
        """How an answer goes, on the bandit's scale."""
        return self.worth.measured(self.outcome(name, context, turn), self.dearest(context))

    def quality(self, name: str, context: Context) -> float:
        """Thumbs up or down, from 0 to 1."""
        return float(self.chance.random() < self._quality(name, frozenset(names(context))))

    def dearest(self, context: Context) -> float:
        """What the dearest answer is expected to cost."""
        return max(self._cost(name, context) for name in NAMES)

    def reward(self, name: str, context: Context, turn: int = 0) -> float:
        """The true expected reward; nobody but the judge may look."""
        return self.expected(name, context, self.breaks_at is not None and turn >= self.breaks_at, 1.0)

    def logged_reward(self, name: str, context: Context, rated_share: float) -> float:
        """The true expected reward where only a share of the answers is rated, the others counting as neutral."""
        return self.expected(name, context, False, rated_share)

    def _expected(self, name: str, context: Context, broken: bool, rated_share: float) -> float:
        success = self._success(name, self.breaks_at or 0) if broken else DEPLOYMENTS[name].success
        slowness = capped_mean(self._seconds(name, context) / self.worth.slow_seconds, SLOWER)
        cost = capped_mean(self._cost(name, context) / self.dearest(context), DEARER)
        quality = self._quality(name, frozenset(names(context)))
        rated = rated_share * quality + (1 - rated_share) * NEUTRAL_QUALITY
        return self.worth.reward((success, slowness, cost * success), rated)

    def _success(self, name: str, turn: int) -> float:
        broken = self.breaks_at is not None and turn >= self.breaks_at and name == "cloudru/coder"
        return 0.5 if broken else DEPLOYMENTS[name].success

    def _seconds(self, name: str, context: Context) -> float:
        truth = DEPLOYMENTS[name]
        return truth.seconds + truth.seconds_long * ("length:long" in names(context))

    def _cost(self, name: str, context: Context) -> float:
        tokens = next(TOKENS[feature] for feature in names(context) if feature in TOKENS)
        return DEPLOYMENTS[name].price * (tokens + OUTPUT_TOKENS)

    def _quality(self, name: str, features: frozenset[str]) -> float:
        truth = DEPLOYMENTS[name]
        suits = sum(more for when, more in truth.suits.items() if features.issuperset(when.split("+")))
        return min(max(truth.quality + suits, 0.0), 1.0)


def untaught() -> Learned:
    """The strategy `learned` before it learned anything."""
    return Learned(Bandit(Learning(), random.Random(1)))


def capped_mean(usual: float, factors: Sequence[float]) -> float:
    """The mean of what differs from the usual by these factors and is cut off at 1."""
    return fmean(min(1.0, usual * factor) for factor in factors)


Due: TypeAlias = list[tuple[int, Callable[[float], None]]]
"""What becomes known in which turn."""


@dataclass(slots=True)
class Story:
    """What the bandit did in a world."""

    contexts: list[Context] = field(default_factory=list)
    firsts: list[str] = field(default_factory=list)
    log: list[Logged] = field(default_factory=list)


def lived(world: World, turns: int, learning: Learning) -> Story:
    """Let a bandit choose `turns` times, learning from outcomes and feedback as late as they come."""
    bandit, story = Bandit(learning, world.chance), Story()
    due: Due = []
    for turn in range(turns):
        if turn % FIT_EVERY == 0:
            bandit.fit()
        for each in [each for each in due if each[0] <= turn]:
            each[1](float(turn))
            due.remove(each)
        _turn(world, bandit, story, turn, due)
    return story


def _turn(
    world: World, bandit: Bandit, story: Story, turn: int, due: list[tuple[int, Callable[[float], None]]]
) -> None:
    context = world.prompt()
    gamble = bandit.choose(NAMES, context)
    name = gamble.first
    measured = world.measured(name, context, turn)
    due.append((turn + OUTCOME_DELAY, lambda now: bandit.learn(name, context, measured, now)))
    quality = NEUTRAL_QUALITY
    if world.chance.random() < RATED_SHARE:
        quality = world.quality(name, context)
        due.append((turn + FEEDBACK_DELAY, lambda now: bandit.rate(name, context, quality, now)))
    story.contexts.append(context)
    story.firsts.append(name)
    reward = world.worth.reward(measured, quality)
    story.log.append(Logged(context, NAMES, name, gamble.chances[name], reward))


def oracle(world: World, contexts: Sequence[Context]) -> list[str]:
    """The best deployment for each."""
    return [max(NAMES, key=lambda name: world.reward(name, each, turn)) for turn, each in enumerate(contexts)]


def best_fixed(world: World, contexts: Sequence[Context]) -> str:
    """The one deployment that would have been best for all of them."""
    return max(NAMES, key=lambda name: sum(rewards(world, contexts, [name] * len(contexts))))


def rewards(world: World, contexts: Sequence[Context], firsts: Sequence[str]) -> Iterator[float]:
    """The true expected reward of each choice."""
    for turn, (context, name) in enumerate(zip(contexts, firsts, strict=True)):
        yield world.reward(name, context, turn)
