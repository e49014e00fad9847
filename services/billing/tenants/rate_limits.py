"""Between rate limits and their messages, which are kept in their own words as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from llmmesh.tenant.v1 import tenant_pb2
from services.billing.fields import check_between, check_id, check_number_of, check_text

MOST_REQUESTS = 10**9
MOST_TOKENS = 10**12
MOST_STREAMS = 10**6
MOST_TEAMS = 1000
MOST_MODELS = 1000

_MOST = {
    "requests_per_minute": MOST_REQUESTS,
    "tokens_per_minute": MOST_TOKENS,
    "tokens_per_day": MOST_TOKENS,
    "concurrent_streams": MOST_STREAMS,
}


def rate_limits_of(message: tenant_pb2.TenantRateLimits) -> Mapping[str, Any]:
    """The limits of a tenant. Raises FieldInvalid for one that cannot be kept."""
    for level in ("tenant", "each_key", "each_user"):
        _check(f"policy.rate_limits.{level}", getattr(message, level))
    check_number_of("policy.rate_limits.teams", len(message.teams), most=MOST_TEAMS)
    for team_id, limits in message.teams.items():
        _check(f"policy.rate_limits.teams.{check_id('policy.rate_limits.teams', team_id)}", limits)
    return MessageToDict(message, preserving_proto_field_name=True)


def rate_limits_message(words: Mapping[str, Any]) -> tenant_pb2.TenantRateLimits | None:
    """The message of a tenant's limits; None when there are none."""
    return ParseDict(dict(words), tenant_pb2.TenantRateLimits(), ignore_unknown_fields=True) if words else None


def models_of(names: Sequence[str]) -> list[str]:
    """Models that a key or a team may name. Raises FieldInvalid for what is no name."""
    check_number_of("policy.allowed_models", len(names), most=MOST_MODELS)
    return [check_text("policy.allowed_models", name) for name in names]


def key_policy_of(message: tenant_pb2.KeyPolicy) -> Mapping[str, Any]:
    """What a key may do. Raises FieldInvalid for what cannot be kept."""
    models_of(message.allowed_models)
    _check("policy.rate_limits", message.rate_limits)
    return MessageToDict(message, preserving_proto_field_name=True)


def key_policy_message(words: Mapping[str, Any]) -> tenant_pb2.KeyPolicy | None:
    """The message of a key's policy; None when it has none of its own."""
    return ParseDict(dict(words), tenant_pb2.KeyPolicy(), ignore_unknown_fields=True) if words else None


def _check(field: str, limits: tenant_pb2.RateLimits) -> None:
    for name, most in _MOST.items():
        check_between(f"{field}.{name}", getattr(limits, name), 0, most)
