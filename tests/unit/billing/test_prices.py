"""What tokens cost: exact, dated, in any currency."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.errors import DependencyUnavailable, FieldInvalid, ResourceNotFound
from services.billing.money import MICROS
from services.billing.prices import ExchangeRate, Price, PriceBook, Usage

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(days=30)
NOW = START + timedelta(days=60)


def price(deployment: str = "a", currency: str = "RUB", *, at: datetime = START, **micros: int) -> Price:
    amounts = {"input_micros": 100, "cached_input_micros": 10, "output_micros": 300, **micros}
    return Price(deployment=deployment, currency_code=currency, effective_time=at, **amounts)


def book(*prices: Price, rates: tuple[ExchangeRate, ...] = ()) -> PriceBook:
    made = PriceBook("RUB")
    made.load(prices, rates)
    return made


def test_buckets_are_disjoint_and_priced_each_its_own_way() -> None:
    usage = Usage(
        input_tokens=MICROS, cached_input_tokens=MICROS, cache_write_tokens=MICROS, output_tokens=MICROS,
        reasoning_tokens=MICROS,
    )  # fmt: skip
    assert book(price()).cost("a", usage, "RUB", NOW) == 100 + 10 + 100 + 300 + 300


def test_a_request_is_rounded_up_once() -> None:
    assert book(price()).cost("a", Usage(input_tokens=1, output_tokens=1), "RUB", NOW) == 1


def test_nothing_costs_nothing() -> None:
    assert book(price()).cost("a", Usage(), "RUB", NOW) == 0


def test_the_price_in_force_at_the_time_counts() -> None:
    dated = book(price(input_micros=MICROS), price(input_micros=2 * MICROS, at=LATER))
    one = Usage(input_tokens=MICROS)
    assert dated.cost("a", one, "RUB", START) == MICROS
    assert dated.cost("a", one, "RUB", LATER - timedelta(microseconds=1)) == MICROS
    assert dated.cost("a", one, "RUB", LATER) == 2 * MICROS


def test_before_its_first_price_a_deployment_has_none() -> None:
    with pytest.raises(ResourceNotFound) as caught:
        book(price(at=LATER)).cost("a", Usage(), "RUB", START)
    assert caught.value.metadata == {"resource": "prices/a"}


def test_currencies_are_converted_through_the_base_currency() -> None:
    rates = (ExchangeRate("USD", 80 * MICROS, START), ExchangeRate("EUR", 100 * MICROS, START))
    converting = book(price(currency="USD", input_micros=5 * MICROS), rates=rates)
    one = Usage(input_tokens=MICROS)
    assert converting.cost("a", one, "USD", NOW) == 5 * MICROS
    assert converting.cost("a", one, "RUB", NOW) == 400 * MICROS
    assert converting.cost("a", one, "EUR", NOW) == 4 * MICROS


def test_a_currency_without_a_rate_is_named() -> None:
    with pytest.raises(ResourceNotFound, match="GBP"):
        book(price()).cost("a", Usage(), "GBP", NOW)


def test_the_dearest_deployment_is_found() -> None:
    two = book(price("cheap", input_micros=10 * MICROS), price("dear", input_micros=20 * MICROS))
    assert two.dearest(["cheap", "dear"], Usage(input_tokens=MICROS), "RUB", NOW) == 20 * MICROS


def test_which_is_dearest_depends_on_the_tokens() -> None:
    two = book(price("in", input_micros=9, output_micros=1), price("out", input_micros=1, output_micros=9))
    assert two.dearest(["in", "out"], Usage(input_tokens=MICROS), "RUB", NOW) == 9
    assert two.dearest(["in", "out"], Usage(output_tokens=MICROS), "RUB", NOW) == 9


def test_an_absurd_amount_is_refused() -> None:
    with pytest.raises(FieldInvalid):
        book(price(output_micros=10**12)).cost("a", Usage(output_tokens=2**31 - 1), "RUB", NOW)


def test_a_book_that_is_not_loaded_is_unavailable() -> None:
    for ask in (
        lambda: PriceBook("RUB").cost("a", Usage(), "RUB", NOW),
        lambda: PriceBook("RUB").in_force(NOW),
        lambda: PriceBook("RUB").knows_currency("USD", NOW),
    ):
        with pytest.raises(DependencyUnavailable):
            ask()


def test_quotes_leave_out_what_is_not_in_force_yet() -> None:
    quotes = book(price("a"), price("b", at=NOW + timedelta(days=1))).in_force(NOW)
    assert [quote.price.deployment for quote in quotes] == ["a"]


tokens = st.integers(0, 10**6)


@given(
    used=st.tuples(tokens, tokens, tokens, tokens, tokens),
    spare=st.tuples(tokens, tokens),
    micros=st.tuples(*[st.integers(0, 10**9)] * 2),
    cached_share=st.integers(0, 100),
    rate=st.integers(1, 10**12),
)
def test_what_is_used_never_costs_more_than_its_worst_case(
    used: tuple[int, int, int, int, int], spare: tuple[int, int], micros: tuple[int, int], cached_share: int, rate: int
) -> None:
    one = price(
        currency="USD", input_micros=micros[0], cached_input_micros=micros[0] * cached_share // 100,
        output_micros=micros[1],
    )  # fmt: skip
    converting = book(one, rates=(ExchangeRate("USD", rate, START),))
    worst = Usage(input_tokens=sum(used[:3]) + spare[0], output_tokens=sum(used[3:]) + spare[1])
    try:
        held = converting.cost("a", worst, "RUB", NOW)
    except FieldInvalid:
        return
    assert converting.cost("a", Usage(*used), "RUB", NOW) <= held
