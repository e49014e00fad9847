"""The price file: YAML whose numbers are read as exact decimals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.billing.money import MICROS, to_micros
from services.billing.prices import ExchangeRate, Price

LARGEST_PRICE_MICROS = 10**6 * MICROS
"""A million units per million tokens."""


@dataclass(frozen=True, slots=True)
class PriceList:
    """What a price file says; undated rows carry the time it was read."""

    prices: tuple[Price, ...]
    rates: tuple[ExchangeRate, ...]
    read_time: datetime


def read_price_list(path: Path, base_currency: str) -> PriceList:
    """Read a price file.

    Raises:
        ValueError: If it cannot be read; the message lists every mistake.
    """
    try:
        # BaseLoader leaves numbers as they are written: a float would lose digits.
        document = yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - it makes strings only
        listed = _Document.model_validate(document or {})
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    except ValidationError as error:
        mistakes = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ValueError(f"{path}: {'; '.join(mistakes)}") from None
    _check_currencies(path, listed, base_currency)
    return listed.dated(datetime.now(UTC))


def _within_price(micros: int) -> int:
    if micros > LARGEST_PRICE_MICROS:
        raise ValueError("a price is at most a million units per million tokens")
    return micros


def _above_zero(micros: int) -> int:
    if not 0 < micros <= LARGEST_PRICE_MICROS:
        raise ValueError("a rate is above 0 and at most a million")
    return micros


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
    effective: _Effective | None = None

    def dated(self, now: datetime) -> Price:
        cached = self.input if self.cached_input is None else self.cached_input
        return Price(self.deployment, self.currency, self.input, cached, self.output, self.effective or now)


class _RateRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    currency: _Currency
    rate: _Rate
    effective: _Effective | None = None

    def dated(self, now: datetime) -> ExchangeRate:
        return ExchangeRate(self.currency, self.rate, self.effective or now)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    exchange_rates: list[_RateRow] = []
    prices: list[_PriceRow] = []

    def dated(self, now: datetime) -> PriceList:
        """The list, undated rows dated `now`."""
        prices = tuple(price.dated(now) for price in self.prices)
        return PriceList(prices, tuple(rate.dated(now) for rate in self.exchange_rates), now)


def _check_currencies(path: Path, listed: _Document, base_currency: str) -> None:
    convertible = {base_currency, *(rate.currency for rate in listed.exchange_rates)}
    lost = sorted({price.currency for price in listed.prices} - convertible)
    if lost:
        raise ValueError(f"{path}: exchange_rates: {', '.join(lost)} has no rate to {base_currency}")
    names = [(price.deployment, price.effective) for price in listed.prices]
    twice = sorted({deployment for deployment, effective in names if names.count((deployment, effective)) > 1})
    if twice:
        raise ValueError(f"{path}: prices: {', '.join(twice)} has two rows of the same date")
