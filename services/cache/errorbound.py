"""How sure the verifier must be before an answer is served, so that a tenant's rate of wrong hits stays in bounds.

The rate is that of vCache: wrong hits over all candidates that were judged, served or not; a lookup with one candidate
is one of them, and one that judges two has two chances to be wrong. The evidence is outcomes: how sure the verifier was
of a candidate, and whether its answer was right. There is a calibration set that travels with the verifier, and what
each tenant reports. A threshold is kept when the one-sided upper bound (Clopper and Pearson) of the rate is within the
tenant's target, by the calibration set alone and with the reports. Thresholds are tried from the strictest downwards,
and the first that fails ends the search: in such a fixed sequence no correction for trying many is needed.

Pairs of one topic of the calibration set err together, so they say less than as many independent ones. By how much is
its design effect (Kish): so many times fewer trials, and wrong hits among them, the bound counts.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate

LEVELS = 200
"""Certainty is told apart in so many steps."""
NEVER = math.inf
"""The threshold when no certainty has enough evidence."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A candidate that was judged."""

    certainty: float
    """How sure the verifier was, from 0 to 1."""
    right: bool


@dataclass(frozen=True, slots=True)
class BoundState:
    """Everything a tenant's threshold rests on, to be shown."""

    target: float
    """Largest rate of wrong hits among judged candidates that the tenant accepts."""
    confidence: float
    """How sure the bound is meant to be."""
    threshold: float
    """Least certainty that is served; infinite when nothing may be."""
    upper_bound: float
    """The rate of wrong hits at this threshold is at most this, with that confidence."""
    estimate: float
    """Wrong hits over all judged candidates at this threshold."""
    judged: int
    """All outcomes, the calibration set's included; the bound counts those by their design effect."""
    served: int
    """Those at or above the threshold."""
    wrong: int
    """Those of them that were wrong."""
    reported_right: int
    """What the tenant reported, at any certainty."""
    reported_wrong: int


@dataclass(slots=True)
class _Evidence:
    """Outcomes by level of certainty."""

    right: list[int] = field(default_factory=lambda: [0] * (LEVELS + 1))
    wrong: list[int] = field(default_factory=lambda: [0] * (LEVELS + 1))

    @property
    def judged(self) -> int:
        """All of them."""
        return sum(self.right) + sum(self.wrong)

    def add(self, outcome: Outcome) -> None:
        (self.right if outcome.right else self.wrong)[level_of(outcome.certainty)] += 1


class ErrorBound:
    """Thresholds of all tenants. Knows no store: what it has learned is taken by `state` and given by `observe`."""

    def __init__(
        self,
        calibration: Iterable[Outcome],
        *,
        target: float,
        design_effect: float = 1.0,
        confidence: float = 0.95,
        most_disputed: int = 10_000,
    ) -> None:
        self._target = target
        self._design_effect = design_effect
        self._confidence = confidence
        self._most_disputed = most_disputed
        self._calibration = _Evidence()
        for outcome in calibration:
            self._calibration.add(outcome)
        self._tenants: dict[str, _Evidence] = {}
        self._disputed: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._states: dict[tuple[str, float], BoundState] = {}

    def admits(self, tenant_id: str, certainty: float, *, entry_id: str = "", target: float | None = None) -> bool:
        """Whether a hit of this certainty may be served to the tenant from this entry."""
        level = level_of(certainty)
        if level <= self._disputed.get((tenant_id, entry_id), -1):
            return False
        return level / LEVELS >= self.state(tenant_id, target=target).threshold

    def observe(self, tenant_id: str, certainty: float, *, right: bool, entry_id: str = "") -> None:
        """Learn that a hit was right or wrong; an entry that was wrong once never serves as little certainty again."""
        self._tenants.setdefault(tenant_id, _Evidence()).add(Outcome(certainty, right))
        self._forget_states(tenant_id)
        if not right and entry_id:
            self.dispute(tenant_id, entry_id, level_of(certainty))

    def dispute(self, tenant_id: str, entry_id: str, level: int) -> None:
        """Never serve the entry again at this level of certainty or below: it was wrong there."""
        entry = (tenant_id, entry_id)
        self._disputed[entry] = max(level, self._disputed.get(entry, 0))
        self._disputed.move_to_end(entry)
        if len(self._disputed) > self._most_disputed:
            self._disputed.popitem(last=False)

    def forget(self, tenant_id: str) -> None:
        """Unlearn whatever the tenant reported: its evidence is the calibration set again."""
        self._tenants.pop(tenant_id, None)
        for entry in [entry for entry in self._disputed if entry[0] == tenant_id]:
            del self._disputed[entry]
        self._forget_states(tenant_id)

    def restore(self, tenant_id: str, right: Mapping[int, int], wrong: Mapping[int, int]) -> None:
        """Take over what was reported to all replicas, by level of certainty.

        Counts only grow, so where this replica knows of more, a store has lost some: they are not unlearned.
        """
        evidence = self._tenants.setdefault(tenant_id, _Evidence())
        for counts, known in ((right, evidence.right), (wrong, evidence.wrong)):
            for level, count in counts.items():
                place = min(max(level, 0), LEVELS)
                known[place] = max(known[place], count)
        self._forget_states(tenant_id)

    def state(self, tenant_id: str, *, target: float | None = None) -> BoundState:
        """What the tenant's threshold is, and why."""
        wanted = self._target if target is None else target
        known = self._states.get((tenant_id, wanted))
        if known is None:
            known = self._states[tenant_id, wanted] = self._settle(tenant_id, wanted)
        return known

    def _forget_states(self, tenant_id: str) -> None:
        for key in [key for key in self._states if key[0] == tenant_id]:
            del self._states[key]

    def _settle(self, tenant_id: str, target: float) -> BoundState:
        reported = self._tenants.get(tenant_id, _Evidence())
        right = _at_or_above(self._calibration.right, reported.right)
        wrong = _at_or_above(self._calibration.wrong, reported.wrong)
        judged = right[0] + wrong[0]
        failures, trials = self._counted(reported)
        # Reports are of what was served: they say nothing of what the calibration set has ruled out.
        level = max(self._lowest(_Evidence(), target), self._lowest(reported, target))
        served, failed = (right[level] + wrong[level], wrong[level]) if level <= LEVELS else (0, 0)
        return BoundState(
            target=target,
            confidence=self._confidence,
            threshold=level / LEVELS if level <= LEVELS else NEVER,
            upper_bound=upper_bound(failures[level] if failed else 0, trials, self._confidence),
            estimate=failed / judged if judged else 0.0,
            judged=judged,
            served=served,
            wrong=failed,
            reported_right=sum(reported.right),
            reported_wrong=sum(reported.wrong),
        )

    def _lowest(self, reported: _Evidence, target: float) -> int:
        """The level down to which every upper bound is within the target; above all levels when none is."""
        failures, trials = self._counted(reported)
        level = LEVELS + 1
        while level and _at_most(failures[level - 1], trials, target) <= 1 - self._confidence:
            level -= 1
        return level

    def _counted(self, reported: _Evidence) -> tuple[list[int], int]:
        """Wrong ones at or above each level, and all that were judged, as if they were independent."""
        mine, told = _at_or_above(self._calibration.wrong), _at_or_above(reported.wrong)
        wrong = [math.ceil(each / self._design_effect) + other for each, other in zip(mine, told, strict=True)]
        return wrong, math.floor(self._calibration.judged / self._design_effect) + reported.judged


@lru_cache(maxsize=4096)
def upper_bound(wrong: int, judged: int, confidence: float) -> float:
    """The rate that would show so few wrong ones by chance only once in 1 / (1 - confidence) (Clopper and Pearson)."""
    if wrong >= judged:
        return 1.0
    low, high = wrong / judged, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _at_most(wrong, judged, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(wrong: int, judged: int, rate: float) -> float:
    """Probability of at most `wrong` among `judged` at this rate."""
    if rate <= 0:
        return 1.0
    logs = (
        math.lgamma(judged + 1)
        - math.lgamma(number + 1)
        - math.lgamma(judged - number + 1)
        + number * math.log(rate)
        + (judged - number) * math.log1p(-rate)
        for number in range(wrong + 1)
    )
    return min(1.0, math.fsum(math.exp(log) for log in logs))


def level_of(certainty: float) -> int:
    """The step of a certainty, 0 to LEVELS."""
    return min(LEVELS, max(0, math.floor(certainty * LEVELS + 1e-9)))


def _at_or_above(*counts: list[int]) -> list[int]:
    """For each level, the outcomes at it and above."""
    together = [sum(each) for each in zip(*counts, strict=True)]
    return list(accumulate(reversed(together)))[::-1]
