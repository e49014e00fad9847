"""The price file: YAML or CSV whose numbers are exact decimals."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.billing.margins import LEAST_POINTS, MOST_POINTS, Margin
from services.billing.money import MICROS, to_micros, to_text
from services.billing.prices import ExchangeRate, Price

CSV_COLUMNS = (
    "deployment", "currency", "input", "cached_input", "cache_write", "output", "reasoning", "image", "request", "rate",
    "tenant", "margin_percent", "effective",
)  # fmt: skip
LARGEST_PRICE_MICROS = 10**6 * MICROS
"""A million units per million tokens."""


@dataclass(frozen=True, slots=True)
class PriceList:
    """What a price file says; undated rows carry the time it was read."""

    prices: tuple[Price, ...]
    rates: tuple[ExchangeRate, ...]
    margins: tuple[Margin, ...]
    read_time: datetime


def read_price_list(path: Path, base_currency: str) -> PriceList:
    """Read a price file.

    Raises:
        ValueError: If it cannot be read; the message lists every mistake.
    """
    try:
        return price_list(path.read_text(), base_currency, table=path.suffix == ".csv")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def price_list(text: str, base_currency: str, *, table: bool = False) -> PriceList:
    """Read what a price file says: YAML, or a table.

    Raises:
        ValueError: If it is neither; the message lists every mistake.
    """
    try:
        listed = _Document.model_validate(_document(text, table=table) or {})
    except yaml.YAMLError as error:
        raise ValueError(f"is no YAML: {error}") from None
    except ValidationError as error:
        mistakes = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ValueError("; ".join(mistakes)) from None
    _check_currencies(listed, base_currency)
    return listed.dated(datetime.now(UTC))


def as_yaml(prices: Sequence[Price], rates: Sequence[ExchangeRate], margins: Sequence[Margin]) -> str:
    """A price file that says what the book says, every row dated."""
    document = {
        "exchange_rates": [_rate_row(rate) for rate in rates],
        "prices": [_price_row(price) for price in prices],
        "margins": [_margin_row(margin) for margin in margins],
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def as_csv(prices: Sequence[Price], rates: Sequence[ExchangeRate], margins: Sequence[Margin]) -> str:
    """The same as a table: a row with a rate is an exchange rate, one with a tenant a margin."""
    table = io.StringIO()
    writer = csv.DictWriter(table, CSV_COLUMNS)
    writer.writeheader()
    writer.writerows([_rate_row(rate) for rate in rates])
    writer.writerows([_price_row(price) for price in prices])
    writer.writerows([_margin_row(margin) for margin in margins])
    return table.getvalue()


def _document(text: str, *, table: bool) -> Any:
    if not table:
        # BaseLoader leaves numbers as they are written: a float would lose digits.
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes strings only
    rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(text.splitlines())]
    return {
        "exchange_rates": [row for row in rows if "rate" in row],
        "margins": [row for row in rows if "tenant" in row],
        "prices": [row for row in rows if "rate" not in row and "tenant" not in row],
    }


def _rate_row(rate: ExchangeRate) -> dict[str, str]:
    return {
        "currency": rate.currency_code,
        "rate": to_text(rate.rate_micros),
        "effective": rate.effective_time.isoformat(),
    }


def _margin_row(margin: Margin) -> dict[str, str]:
    return {
        "tenant": margin.tenant_id,
        "margin_percent": str(Decimal(margin.basis_points).scaleb(-2)),
        "effective": margin.effective_time.isoformat(),
    }


def _price_row(price: Price) -> dict[str, str]:
    amounts = {
        "input": price.input_micros,
        "cached_input": price.cached_input_micros,
        "cache_write": price.cache_write_micros,
        "output": price.output_micros,
        "reasoning": price.reasoning_micros,
        "image": price.image_micros,
        "request": price.request_micros,
    }
    return {
        "deployment": price.deployment,
        "currency": price.currency_code,
        **{name: to_text(micros) for name, micros in amounts.items() if micros is not None},
        "effective": price.effective_time.isoformat(),
    }


def _within_price(micros: int) -> int:
    if micros > LARGEST_PRICE_MICROS:
        raise ValueError("a price is at most a million units per million tokens")
    return micros


def _above_zero(micros: int) -> int:
    if not 0 < micros <= LARGEST_PRICE_MICROS:
        raise ValueError("a rate is above 0 and at most a million")
    return micros


def _to_points(text: str) -> int:
    """Read a decimal number of percent as basis points, exactly."""
    try:
        points = Decimal(text) * 100
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal number") from None
    if not points.is_finite() or points != points.to_integral_value():
        raise ValueError(f"{text!r} is finer than a hundredth of a percent")
    if not LEAST_POINTS <= points <= MOST_POINTS:
        raise ValueError(f"{text!r} is not between {LEAST_POINTS // 100} and {MOST_POINTS // 100} percent")
    return int(points)


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


_Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]
_PerMillion = Annotated[int, BeforeValidator(to_micros), AfterValidator(_within_price)]
_Rate = Annotated[int, BeforeValidator(to_micros), AfterValidator(_above_zero)]
_Effective = Annotated[datetime, AfterValidator(_in_utc)]


class _PriceRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    deployment: str = Field(min_length=1, max_length=200)
    currency: _Currency
    input: _PerMillion
    cached_input: _PerMillion | None = None
    output: _PerMillion
    cache_write: _PerMillion | None = None
    reasoning: _PerMillion | None = None
    image: _PerMillion = 0
    request: _PerMillion = 0
    effective: _Effective | None = None

    def dated(self, now: datetime) -> Price:
        cached = self.input if self.cached_input is None else self.cached_input
        return Price(
            self.deployment, self.currency, self.input, cached, self.output, self.effective or now,
            self.cache_write, self.reasoning, self.image, self.request,
        )  # fmt: skip


class _RateRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    currency: _Currency
    rate: _Rate
    effective: _Effective | None = None

    def dated(self, now: datetime) -> ExchangeRate:
        return ExchangeRate(self.currency, self.rate, self.effective or now)


class _MarginRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tenant: str = Field(min_length=1, max_length=200)
    margin_percent: Annotated[int, BeforeValidator(_to_points)]
    effective: _Effective | None = None

    def dated(self, now: datetime) -> Margin:
        return Margin(self.tenant, self.margin_percent, self.effective or now)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    exchange_rates: list[_RateRow] = []
    prices: list[_PriceRow] = []
    margins: list[_MarginRow] = []

    def dated(self, now: datetime) -> PriceList:
        """The list, undated rows dated `now`."""
        prices = tuple(price.dated(now) for price in self.prices)
        rates = tuple(rate.dated(now) for rate in self.exchange_rates)
        return PriceList(prices, rates, tuple(margin.dated(now) for margin in self.margins), now)


def _check_currencies(listed: _Document, base_currency: str) -> None:
    convertible = {base_currency, *(rate.currency for rate in listed.exchange_rates)}
    lost = sorted({price.currency for price in listed.prices} - convertible)
    if lost:
        raise ValueError(f"exchange_rates: {', '.join(lost)} has no rate to {base_currency}")
    for field, names in (
        ("prices", [(price.deployment, price.effective) for price in listed.prices]),
        ("exchange_rates", [(rate.currency, rate.effective) for rate in listed.exchange_rates]),
        ("margins", [(margin.tenant, margin.effective) for margin in listed.margins]),
    ):
        twice = sorted({name for (name, _), times in Counter(names).items() if times > 1})
        if twice:
            raise ValueError(f"{field}: {', '.join(twice)} has two rows of the same date")
