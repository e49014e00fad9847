"""Between the price book and its messages."""

from __future__ import annotations

from datetime import datetime

from llmmesh.billing.v1 import billing_pb2, prices_pb2
from meshkit.errors import FieldInvalid
from services.billing.fields import check_between, check_currency, check_text
from services.billing.margins import LEAST_POINTS, MOST_POINTS, Margin
from services.billing.messages import time_of, timestamp
from services.billing.price_list import LARGEST_PRICE_MICROS
from services.billing.prices import ExchangeRate, Price

_AMOUNTS = (
    "input_micros", "output_micros", "cached_input_micros", "cache_write_micros", "reasoning_micros", "image_micros",
    "request_micros",
)  # fmt: skip


def price_of(request: prices_pb2.CreatePriceRequest, asked: datetime) -> Price:
    """A price to add, in force from when it is asked for unless it says otherwise."""
    amounts = {name: check_between(name, getattr(request, name), 0, LARGEST_PRICE_MICROS) for name in _AMOUNTS}
    cached = amounts["cached_input_micros"] if request.HasField("cached_input_micros") else amounts["input_micros"]
    return Price(
        deployment=check_text("deployment", request.deployment),
        currency_code=check_currency("currency_code", request.currency_code),
        input_micros=amounts["input_micros"],
        cached_input_micros=cached,
        output_micros=amounts["output_micros"],
        effective_time=_effective(request, asked),
        cache_write_micros=amounts["cache_write_micros"] if request.HasField("cache_write_micros") else None,
        reasoning_micros=amounts["reasoning_micros"] if request.HasField("reasoning_micros") else None,
        image_micros=amounts["image_micros"],
        request_micros=amounts["request_micros"],
    )


def rate_of(request: prices_pb2.CreateExchangeRateRequest, asked: datetime) -> ExchangeRate:
    """A rate to add."""
    rate_micros = check_between("rate_micros", request.rate_micros, 1, LARGEST_PRICE_MICROS)
    code = check_currency("currency_code", request.currency_code)
    return ExchangeRate(code, rate_micros, _effective(request, asked))


def margin_of(request: prices_pb2.CreateMarginRequest, asked: datetime) -> Margin:
    """A margin to add."""
    points = check_between("basis_points", request.basis_points, LEAST_POINTS, MOST_POINTS)
    return Margin(request.tenant_id, points, _effective(request, asked))


def price_row_message(price: Price) -> billing_pb2.Price:
    """A price, as it stands in the book."""
    return billing_pb2.Price(
        deployment=price.deployment,
        currency_code=price.currency_code,
        input_micros=price.input_micros,
        cached_input_micros=price.cached_input_micros,
        output_micros=price.output_micros,
        effective_time=timestamp(price.effective_time),
        cache_write_micros=price.cache_write_micros,
        reasoning_micros=price.reasoning_micros,
        image_micros=price.image_micros,
        request_micros=price.request_micros,
    )


def rate_message(rate: ExchangeRate) -> prices_pb2.ExchangeRate:
    """An exchange rate."""
    return prices_pb2.ExchangeRate(
        currency_code=rate.currency_code, rate_micros=rate.rate_micros, effective_time=timestamp(rate.effective_time)
    )


def margin_message(margin: Margin) -> prices_pb2.Margin:
    """A margin."""
    return prices_pb2.Margin(
        tenant_id=margin.tenant_id,
        basis_points=margin.basis_points,
        effective_time=timestamp(margin.effective_time),
    )


def _effective(
    request: prices_pb2.CreatePriceRequest | prices_pb2.CreateExchangeRateRequest | prices_pb2.CreateMarginRequest,
    asked: datetime,
) -> datetime:
    if not request.HasField("effective_time"):
        return asked
    time = time_of("effective_time", request.effective_time)
    if request.effective_time.nanos % 1000:
        raise FieldInvalid("effective_time", "must not be finer than a microsecond")
    return time
