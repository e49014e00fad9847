"""The price file: exact numbers, all mistakes named."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.billing.price_list import PriceList, read_price_list
from services.billing.prices import Price

SHIPPED = Path("deploy/local/prices.yaml")


def read(tmp_path: Path, text: str) -> PriceList:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    return read_price_list(path, "RUB")


def test_numbers_are_read_exactly_and_dates_in_utc(tmp_path: Path) -> None:
    listed = read(
        tmp_path,
        """
        exchange_rates: [{currency: USD, rate: 80.123456, effective: 2026-11-01}]
        prices: [{deployment: a/b, currency: USD, input: 0.1, output: 0.3, effective: "2026-11-01T03:00:00+03:00"}]
        """,
    )
    assert [rate.rate_micros for rate in listed.rates] == [80_123_456]
    assert listed.prices == (Price("a/b", "USD", 100_000, 100_000, 300_000, datetime(2026, 11, 1, tzinfo=UTC)),)


def test_an_undated_row_carries_the_time_it_was_read(tmp_path: Path) -> None:
    listed = read(tmp_path, "prices: [{deployment: a, currency: RUB, input: 1, output: 2, cached_input: 0.5}]")
    assert listed.prices[0].effective_time == listed.read_time
    assert listed.prices[0].cached_input_micros == 500_000


def test_a_table_says_the_same_as_yaml(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(
        "deployment,currency,input,output,image,rate,effective\n,USD,,,,80,2026-01-01\na,USD,3,15,0.01,,2026-01-01\n"
    )
    listed = read_price_list(path, "RUB")
    [price] = listed.prices
    assert (price.input_micros, price.cache_write_micros, price.image_micros) == (3_000_000, None, 10_000)
    assert [rate.rate_micros for rate in listed.rates] == [80_000_000]


def test_an_empty_file_is_an_empty_list(tmp_path: Path) -> None:
    assert read(tmp_path, "").prices == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prices: [{deployment: a, currency: RUB, input: 1}]", "prices.0.output"),
        ("prices: [{deployment: a, currency: rub, input: 1, output: 1}]", "prices.0.currency"),
        ("prices: [{deployment: a, currency: RUB, input: 0.0000001, output: 1}]", "finer than a millionth"),
        ("prices: [{deployment: a, currency: RUB, input: -1, output: 1}]", "prices.0.input"),
        ("prices: [{deployment: a, currency: RUB, input: 1, output: 9000000}]", "at most a million"),
        ("prices: [{deployment: a, currency: RUB, input: 1, output: 1, extra: 1}]", "prices.0.extra"),
        ("prices: [{deployment: a, currency: USD, input: 1, output: 1}]", "USD has no rate to RUB"),
        ("exchange_rates: [{currency: USD, rate: 0}]", "above 0"),
        ("exchange_rates: [{currency: USD, rate: 1}, {currency: USD, rate: 2}]", "USD has two rows of the same date"),
        ("prices: {", "is no YAML"),
        ("prices: 5", "prices"),
        (
            "prices: [{deployment: a, currency: RUB, input: 1, output: 1}, "
            "{deployment: a, currency: RUB, input: 2, output: 2}]",
            "two rows of the same date",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(tmp_path, text)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prices\.0\.input.*prices\.1\.output"):
        read(tmp_path, "prices: [{deployment: a, currency: RUB, input: x, output: 1}, "
                       "{deployment: b, currency: RUB, input: 1}]")  # fmt: skip


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_price_list(tmp_path / "none.yaml", "RUB")


def test_the_shipped_file_prices_the_shipped_models() -> None:
    listed = read_price_list(SHIPPED, "RUB")
    assert {"local/smollm2-135m", "local/multilingual-e5-small"} <= {price.deployment for price in listed.prices}
