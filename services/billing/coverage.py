"""What a request may use for the most that it may cost."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from meshkit.errors import MaxCostExceeded
from services.billing.margins import charged
from services.billing.money import to_text
from services.billing.prices import PriceBook, Usage


@dataclass(frozen=True, slots=True)
class Quoting:
    """Where prices come from: the book at one time, in one currency, for a tenant of one margin."""

    book: PriceBook
    currency_code: str
    at: datetime
    margin_points: int = 0

    def dearest(self, deployments: Sequence[str], usage: Usage) -> int:
        """The most that may be charged for `usage` at any of `deployments`."""
        return charged(self.book.dearest(deployments, usage, self.currency_code, self.at), self.margin_points)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Deployments that may answer, the most that may be used, and what that costs at the dearest of them."""

    deployments: tuple[str, ...]
    worst_case: Usage
    amount_micros: int


def covered(prices: Quoting, deployments: tuple[str, ...], worst_case: Usage, max_cost_micros: int | None) -> Coverage:
    """As much of `worst_case` as may be paid for: all input and the longest answer, at whoever gives it for the money.

    Raises:
        MaxCostExceeded: If none gives a single token of an answer for it.
    """
    amount = prices.dearest(deployments, worst_case)
    if max_cost_micros is None or amount <= max_cost_micros:
        return Coverage(deployments, worst_case, amount)
    lengths = {each: _longest(prices, each, worst_case, max_cost_micros) for each in deployments}
    longest = max(lengths.values())
    if longest < min(1, worst_case.output_tokens):
        raise _too_dear(prices, deployments, worst_case, max_cost_micros)
    kept = tuple(each for each in deployments if lengths[each] == longest)
    shorter = replace(worst_case, output_tokens=longest)
    return Coverage(kept, shorter, prices.dearest(kept, shorter))


def _longest(prices: Quoting, deployment: str, worst_case: Usage, max_cost_micros: int) -> int:
    """Tokens of the longest answer that may be paid for; -1 when not even the prompt may."""

    def cost(output_tokens: int) -> int:
        return prices.dearest((deployment,), replace(worst_case, output_tokens=output_tokens))

    return bisect_right(range(worst_case.output_tokens + 1), max_cost_micros, key=cost) - 1


def _too_dear(
    prices: Quoting, deployments: tuple[str, ...], worst_case: Usage, max_cost_micros: int
) -> MaxCostExceeded:
    shortest = replace(worst_case, output_tokens=min(1, worst_case.output_tokens))
    least = to_text(min(prices.dearest((each,), shortest) for each in deployments))
    most = to_text(max_cost_micros)
    return MaxCostExceeded(
        f"This request may cost {most} {prices.currency_code}, and its prompt alone may take {least}: raise max_cost, "
        "shorten the prompt or name a cheaper model.",
        field="max_cost",
        max_cost=most,
        least_cost=least,
        currency_code=prices.currency_code,
    )
