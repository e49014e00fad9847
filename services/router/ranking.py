"""In what order deployments are asked: a strategy scores them, priority stands before any score."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmmesh.chat.v1 import chat_pb2
from services.router.constraints import Limits
from services.router.deployment import LAST_PRIORITY, Deployment
from services.router.experiments.treatment import Treatment
from services.router.needs import Needs
from services.router.preferences import Caller

NOMINAL_INPUT_TOKENS = 3
NOMINAL_OUTPUT_TOKENS = 1
"""A usual chat reads three tokens for each it writes: the mix for listing models without a prompt."""
PRICED_TOKENS = 1_000_000
"""How many tokens a price is for: price times tokens, not yet divided by it, is in millionths of a micro-unit."""
NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Price:
    """Per million tokens, in micro-units of billing's base currency."""

    input_micros: int
    output_micros: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Demand:
    """A request, as far as choosing a deployment is concerned."""

    model: str
    """Public name."""
    needs: Needs
    limits: Limits
    caller: Caller
    prompt: chat_pb2.ChatPrompt = field(default_factory=chat_pb2.ChatPrompt)
    """Empty where texts are to be embedded."""
    texts: Sequence[str] = ()
    """What is to be embedded."""
    treatment: Treatment | None = None
    """None outside of experiments."""
    shadows: frozenset[str] = NOBODY
    """Deployments that may get a copy."""
    alone: bool = False
    """Whether no second deployment is asked beside a silent one."""

    @property
    def firsts(self) -> frozenset[str]:
        """Deployments that its variant has asked before all others."""
        return self.treatment.deployments if self.treatment else NOBODY


@dataclass(frozen=True, slots=True)
class Choice:
    """The deployments that may and can answer a request."""

    demand: Demand
    candidates: Sequence[Deployment]
    costs: Sequence[float]
    """What the request would cost at each, in millionths of a micro-unit; infinite where no price is known."""
    groups: Sequence[int] = ()
    """As in `Shortlist.groups`."""


class Strategy(Protocol):
    """Scores candidates. It can neither add one nor take one out."""

    def scores(self, choice: Choice) -> Sequence[float]:
        """One for each candidate, in their order; the highest is asked first."""
        ...


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Deployments that may and can answer one kind of request: the same for many, so made once."""

    deployments: Sequence[Deployment]
    names: Sequence[str]
    groups: Sequence[int]
    """Of each; those of a smaller one are asked first. Empty when there is but one group."""

    @classmethod
    def of(
        cls, deployments: Sequence[Deployment], preferred: Container[str] = (), firsts: Container[str] = ()
    ) -> Shortlist:
        """The `firsts` of a variant stand before those `preferred` by rules, then all others, each by priority."""
        groups = [
            each.priority + ((each.name not in preferred) + 2 * (each.name not in firsts)) * LAST_PRIORITY
            for each in deployments
        ]
        return cls(deployments, [each.name for each in deployments], groups if len(set(groups)) > 1 else ())


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order of asking, with what decided it."""

    candidates: Sequence[Deployment]
    order: Sequence[int]
    """Places in the sequences beside it."""
    scores: Sequence[float]
    costs: Sequence[float]

    def deployments(self) -> list[Deployment]:
        """The candidates in the order of asking."""
        return [self.candidates[place] for place in self.order]


def costs(names: Iterable[str], prices: Mapping[str, Price], input_tokens: int, output_tokens: int) -> list[float]:
    """What so many tokens would cost at each deployment; infinite where no price is known."""
    return [
        math.inf if price is None else price.input_micros * input_tokens + price.output_micros * output_tokens
        for price in map(prices.get, names)
    ]


def ranked(strategy: Strategy, demand: Demand, shortlist: Shortlist, prices: Mapping[str, Price]) -> Ranking:
    """Rank by group, then by score; the cheaper of equals first, then the order of the file."""
    needs = demand.needs
    cost = costs(shortlist.names, prices, needs.input_tokens, needs.likely_output_tokens)
    scores = strategy.scores(Choice(demand, shortlist.deployments, cost, shortlist.groups))
    # Sorting by one number after the other is twice as fast as once by tuples.
    order = sorted(range(len(cost)), key=cost.__getitem__)
    order.sort(key=scores.__getitem__, reverse=True)
    if shortlist.groups:
        order.sort(key=shortlist.groups.__getitem__)
    return Ranking(shortlist.deployments, order, scores, cost)


def cheapest_first(deployments: Sequence[Deployment], prices: Mapping[str, Price]) -> list[Deployment]:
    """Order by what a usual request costs; equal ones, and those without a price at the end, stay as they were."""
    cost = costs([each.name for each in deployments], prices, NOMINAL_INPUT_TOKENS, NOMINAL_OUTPUT_TOKENS)
    return [deployments[place] for place in sorted(range(len(cost)), key=cost.__getitem__)]
