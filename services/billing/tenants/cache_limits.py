"""Between the cache limits of a tenant and their message."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import FieldInvalid
from services.billing.tenants.tenant import CacheLimits

LONGEST_TTL_SECONDS = 30 * 24 * 3600
HIGHEST_TEMPERATURE = 2.0
_TTLS = ("default_ttl", "min_ttl", "max_ttl")


def cache_limits_of(message: tenant_pb2.CacheLimits) -> CacheLimits:
    """The limits of a message. Raises FieldInvalid for one that cannot be kept."""
    ttls = {f"{name}_seconds": _ttl(message, name) for name in _TTLS}
    if (
        message.HasField("min_ttl")
        and message.HasField("max_ttl")
        and ttls["min_ttl_seconds"] > ttls["max_ttl_seconds"]
    ):
        raise FieldInvalid("policy.cache_limits.min_ttl", "must not be longer than max_ttl")
    if message.largest_answer_bytes < 0:
        raise FieldInvalid("policy.cache_limits.largest_answer_bytes", "must not be negative")
    return CacheLimits(
        **ttls, largest_answer_bytes=message.largest_answer_bytes, highest_temperature=_temperature(message)
    )


def cache_limits_message(limits: CacheLimits) -> tenant_pb2.CacheLimits | None:
    """The message of limits; None when there are none."""
    if limits == CacheLimits():
        return None
    message = tenant_pb2.CacheLimits(
        largest_answer_bytes=limits.largest_answer_bytes, highest_temperature=limits.highest_temperature
    )
    for name in _TTLS:
        seconds = getattr(limits, f"{name}_seconds")
        if seconds:
            getattr(message, name).FromNanoseconds(round(seconds * 1e9))
    return message


def _ttl(message: tenant_pb2.CacheLimits, name: str) -> float:
    """Seconds; 0 when absent."""
    if not message.HasField(name):  # type: ignore[arg-type] # the names above are its fields
        return 0.0
    duration: Duration = getattr(message, name)
    seconds = duration.ToNanoseconds() / 1e9
    if not 0 < seconds <= LONGEST_TTL_SECONDS:
        raise FieldInvalid(
            f"policy.cache_limits.{name}", f"must be more than 0 and at most {LONGEST_TTL_SECONDS} seconds"
        )
    return seconds


def _temperature(message: tenant_pb2.CacheLimits) -> float | None:
    if not message.HasField("highest_temperature"):
        return None
    if not 0 <= message.highest_temperature <= HIGHEST_TEMPERATURE:
        raise FieldInvalid("policy.cache_limits.highest_temperature", f"must be from 0 to {HIGHEST_TEMPERATURE:g}")
    return message.highest_temperature
