"""In what order deployments are asked: a strategy scores them, priority stands before any score."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmmesh.chat.v1 import chat_pb2
from services.router.constraints import Limits
from services.router.deployment import Deployment
from services.router.needs import Needs
from services.router.preferences import Caller

NOMINAL_INPUT_TOKENS = 3
NOMINAL_OUTPUT_TOKENS = 1
"""A usual chat reads three tokens for each it writes: the mix for listing models without a prompt."""


@dataclass(frozen=True, slots=True)
class Price:
    """Per million tokens, in micro-units of billing's base currency."""

    input_micros: int
    output_micros: int


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Choice:
    """The deployments that may and can answer a request."""

    demand: Demand
    candidates: Sequence[Deployment]
    costs: Sequence[float]
    """What the request would cost at each, in millionths of a micro-unit; infinite where no price is known."""


class Strategy(Protocol):
    """Scores candidates. It can neither add one nor take one out."""

    def scores(self, choice: Choice) -> Sequence[float]:
        """One for each candidate, in their order; the highest is asked first."""
        ...


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with what decided its place."""

    deployment: Deployment
    score: float
    cost: float
    """As in `Choice.costs`."""


def costs(
    deployments: Iterable[Deployment], prices: Mapping[str, Price], input_tokens: int, output_tokens: int
) -> list[float]:
    """What so many tokens would cost at each; infinite where no price is known."""
    found = map(prices.get, [deployment.name for deployment in deployments])
    return [
        math.inf if price is None else price.input_micros * input_tokens + price.output_micros * output_tokens
        for price in found
    ]


def ranked(
    strategy: Strategy,
    demand: Demand,
    candidates: Sequence[Deployment],
    prices: Mapping[str, Price],
    preferred: Container[str] = (),
) -> list[Ranked]:
    """The candidates in the order of asking.

    Those `preferred` by rules come first, then by priority and score; the cheaper of equals, then the file's order.
    """
    needs = demand.needs
    cost = costs(candidates, prices, needs.input_tokens, needs.likely_output_tokens)
    scores = strategy.scores(Choice(demand, candidates, cost))
    scored = zip(candidates, scores, cost, strict=True)
    keys = [(each.name not in preferred, each.priority, -score, paid) for each, score, paid in scored]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return [Ranked(candidates[place], scores[place], cost[place]) for place in order]


def cheapest_first(deployments: Sequence[Deployment], prices: Mapping[str, Price]) -> list[Deployment]:
    """Order by what a usual request costs; equal ones, and those without a price at the end, stay as they were."""
    cost = costs(deployments, prices, NOMINAL_INPUT_TOKENS, NOMINAL_OUTPUT_TOKENS)
    return [deployments[place] for place in sorted(range(len(cost)), key=cost.__getitem__)]
