"""The price book: what tokens cost at a deployment, and what a currency is worth."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import itemgetter
from typing import Generic, TypeVar

from meshkit.errors import DependencyUnavailable, FieldInvalid, ResourceNotFound
from services.billing.margins import Margin
from services.billing.money import MICROS, MOST_MICROS, ceil_div

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in disjoint buckets: their sum is the total."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    image_count: int = 0
    """Images in the prompt."""
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Price:
    """What one deployment takes from `effective_time` on: micro-units per million tokens, per image, per request."""

    deployment: str
    currency_code: str
    input_micros: int
    cached_input_micros: int
    output_micros: int
    effective_time: datetime
    cache_write_micros: int | None = None
    """For tokens written to a provider's prompt cache; None means as input."""
    reasoning_micros: int | None = None
    """None means as output."""
    image_micros: int = 0
    """For each image of a prompt, beside its tokens."""
    request_micros: int = 0
    """For each request, whatever it uses."""

    def of(self, usage: Usage, requests: int = 1) -> int:
        """Price of `usage` in millionths of a micro-unit: nothing is rounded yet."""
        return (
            usage.input_tokens * self.input_micros
            + usage.cached_input_tokens * self.cached_input_micros
            + usage.cache_write_tokens * _given(self.cache_write_micros, self.input_micros)
            + usage.output_tokens * self.output_micros
            + usage.reasoning_tokens * _given(self.reasoning_micros, self.output_micros)
            + (usage.image_count * self.image_micros + requests * self.request_micros) * MICROS
        )

    def at_its_dearest(self) -> Price:
        """The same price with all input as dear as the dearest kind of it, and all output."""
        dearest_input = max(
            self.input_micros, self.cached_input_micros, _given(self.cache_write_micros, self.input_micros)
        )
        dearest_output = max(self.output_micros, _given(self.reasoning_micros, self.output_micros))
        return replace(self, input_micros=dearest_input, output_micros=dearest_output)


@dataclass(frozen=True, slots=True)
class ExchangeRate:
    """Micro-units of the base currency that one unit of a currency is worth from `effective_time` on."""

    currency_code: str
    rate_micros: int
    effective_time: datetime


@dataclass(frozen=True, slots=True)
class Quote:
    """A price in force, and what it is in the base currency."""

    price: Price
    base_input_micros: int
    base_output_micros: int


class PriceBook:
    """All prices and rates in memory, past and future; empty until `load` is called."""

    def __init__(self, base_currency: str) -> None:
        self.base_currency = base_currency
        self._loaded = False
        self._prices: dict[str, _History[Price]] = {}
        self._rates: dict[str, _History[ExchangeRate]] = {}
        self._margins: dict[str, _History[Margin]] = {}

    def load(self, prices: Iterable[Price], rates: Iterable[ExchangeRate], margins: Iterable[Margin] = ()) -> None:
        """Replace everything the book holds."""
        self._prices = _histories((price.deployment, price.effective_time, price) for price in prices)
        self._rates = _histories((rate.currency_code, rate.effective_time, rate) for rate in rates)
        self._margins = _histories((margin.tenant_id, margin.effective_time, margin) for margin in margins)
        self._loaded = True

    def cost(self, deployment: str, usage: Usage, currency_code: str, at: datetime) -> int:
        """Price of `usage` at `deployment` at the time `at`, in micro-units of a currency, rounded up once.

        Raises:
            ResourceNotFound: If the deployment had no price, or a currency no rate.
            FieldInvalid: If the amount is absurd.
            DependencyUnavailable: If the book is not loaded yet.
        """
        return _sane(self.total(deployment, usage, currency_code, at))

    def total(self, deployment: str, usage: Usage, currency_code: str, at: datetime, requests: int = 1) -> int:
        """The same for what many requests used together, however much it is."""
        price = self.price(deployment, at)
        return self._converted(price.of(usage, requests), price.currency_code, currency_code, at)

    def dearest(self, deployments: Sequence[str], usage: Usage, currency_code: str, at: datetime) -> int:
        """The most that `usage` can cost at any of `deployments`, whatever kinds its tokens turn out to be."""
        prices = [self.price(deployment, at).at_its_dearest() for deployment in deployments]
        return _sane(max(self._converted(price.of(usage), price.currency_code, currency_code, at) for price in prices))

    def margin(self, tenant_id: str, at: datetime) -> int:
        """Basis points that a tenant is charged above the price at the time `at`."""
        self._check_loaded()
        history = self._margins.get(tenant_id)
        margin = history.at(at) if history else None
        return margin.basis_points if margin else 0

    def price(self, deployment: str, at: datetime) -> Price:
        """The price of `deployment` in force at the time `at`."""
        self._check_loaded()
        history = self._prices.get(deployment)
        price = history.at(at) if history else None
        if price is None:
            raise ResourceNotFound(
                f"The price book has no price for deployment {deployment!r}: add it to the price file.",
                resource=f"prices/{deployment}",
            )
        return price

    def knows_currency(self, currency_code: str, at: datetime) -> bool:
        """Whether amounts can be converted to the currency."""
        self._check_loaded()
        history = self._rates.get(currency_code)
        return currency_code == self.base_currency or bool(history and history.at(at))

    def in_force(self, at: datetime) -> list[Quote]:
        """Every deployment's price at the time `at`, by deployment; what cannot be converted yet is left out."""
        self._check_loaded()
        prices = (self._prices[deployment].at(at) for deployment in sorted(self._prices))
        return [self._quote(price, at) for price in prices if price and self.knows_currency(price.currency_code, at)]

    def _check_loaded(self) -> None:
        if not self._loaded:
            raise DependencyUnavailable("The price book is not loaded yet: retry in a moment.", retry_after_seconds=1)

    def _quote(self, price: Price, at: datetime) -> Quote:
        rate = self._rate(price.currency_code, at)
        return Quote(price, ceil_div(price.input_micros * rate, MICROS), ceil_div(price.output_micros * rate, MICROS))

    def _converted(self, millionths: int, origin: str, currency_code: str, at: datetime) -> int:
        return ceil_div(millionths * self._rate(origin, at), MICROS * self._rate(currency_code, at))

    def _rate(self, currency_code: str, at: datetime) -> int:
        if currency_code == self.base_currency:
            return MICROS
        history = self._rates.get(currency_code)
        rate = history.at(at) if history else None
        if rate is None:
            raise ResourceNotFound(
                f"The price book has no exchange rate for {currency_code!r}: add it to the price file.",
                resource=f"exchange_rates/{currency_code}",
            )
        return rate.rate_micros


def _given(micros: int | None, otherwise: int) -> int:
    return otherwise if micros is None else micros


def _sane(micros: int) -> int:
    if micros > MOST_MICROS:
        raise FieldInvalid("usage", "costs more than a billion units: check the token counts")
    return micros


class _History(Generic[Row]):
    """Dated rows of one deployment or currency."""

    def __init__(self, dated: Iterable[tuple[datetime, Row]]) -> None:
        ordered = sorted(dated, key=itemgetter(0))
        self._times = [time for time, _ in ordered]
        self._rows = [row for _, row in ordered]

    def at(self, time: datetime) -> Row | None:
        """The row in force at `time`; None before the first."""
        index = bisect_right(self._times, time)
        return self._rows[index - 1] if index else None


def _histories(rows: Iterable[tuple[str, datetime, Row]]) -> dict[str, _History[Row]]:
    grouped: dict[str, list[tuple[datetime, Row]]] = {}
    for name, time, row in rows:
        grouped.setdefault(name, []).append((time, row))
    return {name: _History(dated) for name, dated in grouped.items()}
