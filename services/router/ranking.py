"""Cheapest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.router.deployment import Deployment

NOMINAL_INPUT_TOKENS = 3
NOMINAL_OUTPUT_TOKENS = 1
"""A usual chat reads three tokens for each it writes: the mix for listing models without a prompt."""


@dataclass(frozen=True, slots=True)
class Price:
    """Per million tokens, in micro-units of billing's base currency."""

    input_micros: int
    output_micros: int


def cheapest_first(
    deployments: Iterable[Deployment],
    prices: Mapping[str, Price],
    input_tokens: int = NOMINAL_INPUT_TOKENS,
    output_tokens: int = NOMINAL_OUTPUT_TOKENS,
) -> list[Deployment]:
    """Order by what the request would cost; equal ones, and those without a price at the end, stay as they were."""

    def cost(deployment: Deployment) -> tuple[bool, int]:
        price = prices.get(deployment.name)
        if price is None:
            return True, 0
        return False, price.input_micros * input_tokens + price.output_micros * output_tokens

    return sorted(deployments, key=cost)
