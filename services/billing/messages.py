"""Between the room's own words and the messages of its protos."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.billing.v1 import billing_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid
from services.billing.fields import (
    check_between,
    check_count,
    check_id,
    check_listed,
    check_micros,
    check_number_of,
    check_text,
)
from services.billing.lease import MOST_IMAGES
from services.billing.ledger import CacheHit, LedgerFilter, LedgerRow, UsageTotal
from services.billing.prices import Quote, Usage
from services.billing.reservations import Ask, Reservation

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper as EnumType

Value = TypeVar("Value", bound=int)

_TOKEN_FIELDS = (
    "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"
)  # fmt: skip
_FREE_CACHE_STATUSES = ("exact", "semantic")
MOST_DEPLOYMENTS = 100


def enum_word(field: str, enum: EnumType[Value], value: Value) -> str:
    """The word of an enum value: FINISH_REASON_STOP is "stop".

    Raises:
        FieldInvalid: If the enum has no such value.
    """
    try:
        return enum.Name(value).removeprefix(_prefix(enum)).lower()
    except ValueError:
        raise FieldInvalid(field, f"has no value {value}") from None


def enum_value(enum: EnumType[Value], word: str) -> Value:
    """The enum value of a word that `enum_word` gave."""
    return enum.Value(_prefix(enum) + word.upper())


def timestamp(time: datetime) -> Timestamp:
    """A time as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def time_of(field: str, message: Timestamp) -> datetime:
    """A message as a time.

    Raises:
        FieldInvalid: If it lies outside the years 1 to 9999.
    """
    try:
        return message.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise FieldInvalid(field, "is not a valid time") from None


def ask_of(request: billing_pb2.CreateReservationRequest) -> Ask:
    """What a reservation is asked for."""
    return Ask(
        request_id=check_text("request_id", request.request_id),
        model=check_text("model", request.model),
        deployments=deployments_of(request.deployments),
        input_tokens=check_count("input_tokens", request.input_tokens),
        max_output_tokens=check_count("max_output_tokens", request.max_output_tokens),
        image_count=check_between("image_count", request.image_count, 0, MOST_IMAGES),
        max_cost_micros=(
            check_micros("max_cost_micros", request.max_cost_micros) if request.HasField("max_cost_micros") else None
        ),
    )


def deployments_of(names: Sequence[str]) -> tuple[str, ...]:
    """Deployments that may answer."""
    check_number_of("deployments", len(names), least=1, most=MOST_DEPLOYMENTS)
    return tuple(check_text("deployments", name) for name in names)


def usage_of(field: str, message: chat_pb2.TokenUsage) -> Usage:
    """Token counts."""
    counts = {name: check_count(f"{field}.{name}", getattr(message, name)) for name in _TOKEN_FIELDS}
    images = check_count(f"{field}.image_count", message.image_count)
    return Usage(**counts, image_count=images, estimated=message.estimated)


def usage_filter_of(request: billing_pb2.ListUsageRecordsRequest) -> LedgerFilter:
    """Which ledger rows to list."""
    return LedgerFilter(
        start=time_of("start_time", request.start_time) if request.HasField("start_time") else None,
        end=time_of("end_time", request.end_time) if request.HasField("end_time") else None,
        team_id=check_text("team_id", request.team_id, required=False),
        key_id=check_text("key_id", request.key_id, required=False),
        model=check_text("model", request.model, required=False),
        deployment=check_text("deployment", request.deployment, required=False),
    )


def cache_hit_of(field: str, message: billing_pb2.UsageRecord) -> CacheHit:
    """A row of an answer that cost nothing."""
    if message.cost_micros:
        raise FieldInvalid(f"{field}.cost_micros", "must be 0: what costs money is settled by CommitReservation")
    made = time_of(f"{field}.create_time", message.create_time) if message.HasField("create_time") else None
    return CacheHit(
        request_id=check_text(f"{field}.request_id", message.request_id),
        tenant_id=check_id(f"{field}.tenant_id", message.tenant_id),
        key_id=check_text(f"{field}.key_id", message.key_id, required=False),
        model=check_text(f"{field}.model", message.model),
        deployment=check_text(f"{field}.deployment", message.deployment),
        provider=check_text(f"{field}.provider", message.provider, required=False),
        cache_status=check_listed(f"{field}.cache_status", message.cache_status, _FREE_CACHE_STATUSES),
        usage=usage_of(f"{field}.usage", message.usage),
        finish_reason=enum_word(f"{field}.finish_reason", chat_pb2.FinishReason, message.finish_reason),
        create_time=made,
    )


def reservation_message(reservation: Reservation) -> billing_pb2.Reservation:
    """A reservation."""
    return billing_pb2.Reservation(
        id=reservation.id,
        amount_micros=reservation.amount_micros,
        currency_code=reservation.currency_code,
        expire_time=timestamp(reservation.expire_time),
        max_output_tokens=reservation.max_output_tokens,
        deployments=reservation.deployments,
    )


def price_message(quote: Quote) -> billing_pb2.Price:
    """A price in force."""
    return billing_pb2.Price(
        deployment=quote.price.deployment,
        currency_code=quote.price.currency_code,
        input_micros=quote.price.input_micros,
        cached_input_micros=quote.price.cached_input_micros,
        output_micros=quote.price.output_micros,
        effective_time=timestamp(quote.price.effective_time),
        cache_write_micros=quote.price.cache_write_micros,
        reasoning_micros=quote.price.reasoning_micros,
        image_micros=quote.price.image_micros,
        request_micros=quote.price.request_micros,
        base_input_micros=quote.base_input_micros,
        base_output_micros=quote.base_output_micros,
    )


def usage_record_message(row: LedgerRow, *, with_margin: bool) -> billing_pb2.UsageRecord:
    """A ledger row; what the provider takes of it is not everybody's to know."""
    usage = chat_pb2.TokenUsage(
        input_tokens=row.usage.input_tokens,
        cached_input_tokens=row.usage.cached_input_tokens,
        cache_write_tokens=row.usage.cache_write_tokens,
        output_tokens=row.usage.output_tokens,
        reasoning_tokens=row.usage.reasoning_tokens,
        image_count=row.usage.image_count,
        estimated=row.usage.estimated,
    )
    return billing_pb2.UsageRecord(
        request_id=row.request_id,
        tenant_id=row.tenant_id,
        key_id=row.key_id,
        model=row.model,
        deployment=row.deployment,
        provider=row.provider,
        cache_status=row.cache_status,
        usage=usage,
        cost_micros=row.cost_micros,
        saved_micros=row.saved_micros,
        currency_code=row.currency_code,
        finish_reason=enum_value(chat_pb2.FinishReason, row.finish_reason),
        create_time=timestamp(row.create_time),
        team_id=row.team_id,
        tags=row.tags,
        overrun_micros=row.overrun_micros,
        correction=row.correction,
        stop=row.stop,
        provider_micros=row.provider_micros if with_margin else None,
        margin_basis_points=row.margin_points if with_margin else None,
    )


def usage_total_message(total: UsageTotal, currency_code: str) -> billing_pb2.UsageTotal:
    """A line of a summary."""
    return billing_pb2.UsageTotal(
        name=total.name,
        request_count=total.request_count,
        cached_count=total.cached_count,
        token_count=total.token_count,
        cost_micros=total.cost_micros,
        saved_micros=total.saved_micros,
        currency_code=currency_code,
    )


@cache
def _prefix(enum: EnumType[Value]) -> str:
    """The part every value's name begins with."""
    return enum.keys()[0].removesuffix("UNSPECIFIED")
