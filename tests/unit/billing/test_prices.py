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


def test_every_kind_can_have_a_price_of_its_own() -> None:
    kinds = price(cache_write_micros=125, reasoning_micros=400, image_micros=7, request_micros=50)
    usage = Usage(cache_write_tokens=MICROS, output_tokens=MICROS, reasoning_tokens=MICROS, image_count=3)
    assert book(kinds).cost("a", usage, "RUB", NOW) == 125 + 300 + 400 + 3 * 7 + 50
    assert book(kinds).total("a", Usage(), "RUB", NOW, requests=4) == 4 * 50


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
    two = book(price("in", input_micros=19, output_micros=11), price("out", input_micros=11, output_micros=19))
    assert two.dearest(["in", "out"], Usage(input_tokens=MICROS), "RUB", NOW) == 19
    assert two.dearest(["in", "out"], Usage(output_tokens=MICROS), "RUB", NOW) == 19


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


def test_a_price_that_cannot_be_converted_yet_keeps_no_other_from_being_quoted() -> None:
    tomorrow = ExchangeRate("USD", 80 * MICROS, NOW + timedelta(days=1))
    quotes = book(price("a", "USD"), price("b"), rates=(tomorrow,)).in_force(NOW)
    assert [quote.price.deployment for quote in quotes] == ["b"]


tokens = st.integers(0, 10**6)


@given(
    used=st.tuples(tokens, tokens, tokens, tokens, tokens),
    spare=st.tuples(tokens, tokens),
    images=st.integers(0, 10),
    micros=st.tuples(*[st.integers(0, 10**9)] * 5, *[st.integers(0, 10**9)] * 2),
    rate=st.integers(1, 10**12),
)
def test_what_is_used_never_costs_more_than_its_worst_case(
    used: tuple[int, int, int, int, int], spare: tuple[int, int], images: int, micros: tuple[int, ...], rate: int
) -> None:
    kinds = ("input", "cached_input", "cache_write", "output", "reasoning", "image", "request")
    one = price(currency="USD", **{f"{kind}_micros": each for kind, each in zip(kinds, micros, strict=True)})
    converting = book(one, rates=(ExchangeRate("USD", rate, START),))
    worst = Usage(
        input_tokens=sum(used[:3]) + spare[0], output_tokens=sum(used[3:]) + spare[1], image_count=images
    )  # fmt: skip
    try:
        held = converting.dearest(["a"], worst, "RUB", NOW)
    except FieldInvalid:
        return
    assert converting.cost("a", Usage(*used, images), "RUB", NOW) <= held
