"""What other ways of choosing would have earned, estimated from a log of choices made by chance.

Each logged choice carries the probability it was made with; weighting its reward by the inverse of that probability
makes the log speak for any other policy (inverse propensity scoring, Horvitz and Thompson 1952). The doubly robust
estimate (Dudík, Langford and Li, "Doubly Robust Policy Evaluation and Learning", ICML 2011) adds a model of the
rewards and weights only what the model did not foresee: right when either the probabilities or the model are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import TypeAlias

from services.router.learned.context import Context
from services.router.learned.evidence import Evidence

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Logged:
    """One choice and what came of it."""

    context: Context
    candidates: Sequence[str]
    first: str
    chance: float
    """The probability with which `first` was chosen."""
    reward: float


Policy: TypeAlias = Callable[[Logged], str]
"""Which candidate another way of choosing would have asked first."""
Model: TypeAlias = Callable[[Logged, str], float]
"""The reward expected of a candidate."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean reward and its confidence interval."""

    mean: float
    low: float
    high: float
    choices: int
    """How many logged choices agree with the policy."""


def inverse_propensity(log: Sequence[Logged], policy: Policy) -> Estimate:
    """The reward of `policy`, by weighting what the log has of it."""
    return _estimate([_weight(each, policy) * each.reward for each in log], log, policy)


def doubly_robust(log: Sequence[Logged], policy: Policy, model: Model) -> Estimate:
    """The reward of `policy`: what the model expects, corrected by what the log has of it."""
    return _estimate([_corrected(each, policy, model) for each in log], log, policy)


def fitted(log: Sequence[Logged], ridge: float = 1.0) -> Model:
    """A model of the rewards in a log: one ridge regression for each deployment."""
    evidence: dict[str, Evidence] = {}
    for each in log:
        evidence.setdefault(each.first, Evidence.none(1)).add(each.context, (each.reward,))
    mean = fmean(each.reward for each in log)
    weights = {name: seen.weights([mean], ridge)[:, 0].tolist() for name, seen in evidence.items()}
    return lambda each, name: _expected(weights, each.context, name, mean)


def _expected(weights: Mapping[str, Sequence[float]], context: Context, name: str, mean: float) -> float:
    return math.fsum(weights[name][index] for index in context) if name in weights else mean


def _weight(each: Logged, policy: Policy) -> float:
    return 1 / each.chance if policy(each) == each.first else 0.0


def _corrected(each: Logged, policy: Policy, model: Model) -> float:
    foreseen = model(each, policy(each))
    return foreseen + _weight(each, policy) * (each.reward - foreseen)


def _estimate(values: Sequence[float], log: Sequence[Logged], policy: Policy) -> Estimate:
    mean = fmean(values)
    margin = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - margin, mean + margin, sum(policy(each) == each.first for each in log))
