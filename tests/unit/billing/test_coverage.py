"""What a request may use for the most that it may cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkit.errors import MaxCostExceeded
from services.billing.coverage import Quoting, covered
from services.billing.prices import Price, PriceBook, Usage

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("cheap", "dear", "free")


def price(name: str, input_micros: int, output_micros: int, **more: int) -> Price:
    return Price(name, "RUB", input_micros, input_micros, output_micros, START, **more)


def quoting(*prices: Price) -> Quoting:
    book = PriceBook("RUB")
    book.load(prices, [])
    return Quoting(book, "RUB", START)


RUBLES = quoting(price("cheap", 10**6, 2 * 10**6), price("dear", 3 * 10**6, 10 * 10**6), price("free", 0, 0))


def test_whatever_may_cost_so_much_is_left_as_it_is() -> None:
    coverage = covered(RUBLES, ("cheap", "dear"), Usage(100, output_tokens=50), 800)
    assert (coverage.deployments, coverage.worst_case.output_tokens) == (("cheap", "dear"), 50)
    assert coverage.amount_micros == 800


def test_those_that_are_too_dear_are_left_out() -> None:
    coverage = covered(RUBLES, ("cheap", "dear"), Usage(100, output_tokens=50), 799)
    assert (coverage.deployments, coverage.worst_case.output_tokens) == (("cheap",), 50)
    assert coverage.amount_micros == 200


def test_the_answer_is_as_long_as_the_money_lasts() -> None:
    coverage = covered(RUBLES, ("cheap", "dear"), Usage(100, output_tokens=50), 131)
    assert (coverage.deployments, coverage.worst_case.output_tokens) == (("cheap",), 15)


def test_nothing_is_paid_only_where_nothing_costs() -> None:
    assert covered(RUBLES, NAMES, Usage(100, output_tokens=50), 0).deployments == ("free",)
    with pytest.raises(MaxCostExceeded) as refused:
        covered(RUBLES, ("dear", "cheap"), Usage(100, output_tokens=50), 100)
    assert refused.value.metadata == {
        "field": "max_cost", "max_cost": "0.0001", "least_cost": "0.000102", "currency_code": "RUB"
    }  # fmt: skip


def test_what_has_no_answer_needs_no_token_of_one() -> None:
    assert covered(RUBLES, ("cheap", "dear"), Usage(100), 100).deployments == ("cheap",)
    with pytest.raises(MaxCostExceeded):
        covered(RUBLES, ("cheap", "dear"), Usage(100), 99)


micros = st.integers(0, 10**8)


@settings(deadline=None)
@given(
    st.lists(st.tuples(micros, micros, micros), min_size=1, max_size=4),
    st.integers(0, 10_000),
    st.integers(1, 10_000),
    st.integers(0, 10**6),
)
def test_it_never_costs_more_and_never_could_be_longer(
    amounts: list[tuple[int, int, int]], input_tokens: int, output_tokens: int, most: int
) -> None:
    prices = quoting(
        *(price(str(i), a, b, request_micros=c // 10**4) for i, (a, b, c) in enumerate(amounts)),
    )
    names = tuple(str(number) for number in range(len(amounts)))
    wanted = Usage(input_tokens, output_tokens=output_tokens)
    try:
        coverage = covered(prices, names, wanted, most)
    except MaxCostExceeded:
        assert all(prices.dearest((name,), replace(wanted, output_tokens=1)) > most for name in names)
        return
    assert prices.dearest(coverage.deployments, coverage.worst_case) == coverage.amount_micros <= most
    longer = replace(wanted, output_tokens=coverage.worst_case.output_tokens + 1)
    assert longer.output_tokens > output_tokens or all(prices.dearest((name,), longer) > most for name in names)


def test_a_tenants_margin_counts_towards_what_a_request_may_cost() -> None:
    charged = replace(RUBLES, margin_points=2000)
    coverage = covered(charged, ("cheap",), Usage(100, output_tokens=50), 131)
    # The prompt and four tokens take 108; a fifth would make it 132 with the margin.
    assert (coverage.worst_case.output_tokens, coverage.amount_micros) == (4, 130)
