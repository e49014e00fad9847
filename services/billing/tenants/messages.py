"""Between tenants, keys, policies and their messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, ParseDict

from llmmesh.access.v1 import access_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import FieldInvalid
from services.billing.compliance.packs import pack_names
from services.billing.fields import check_between, check_listed, check_micros, check_number_of, check_text
from services.billing.messages import enum_value, enum_word, time_of, timestamp
from services.billing.tenants.cache_limits import cache_limits_message, cache_limits_of
from services.billing.tenants.policies import PolicyChange
from services.billing.tenants.rate_limits import key_policy_message, rate_limits_message, rate_limits_of
from services.billing.tenants.tenant import Key, KeyFilter, Policy, Tenant, TenantFilter

MOST_NAMES = 1000
MOST_VIOLATION_DAYS = 3660
MOST_TAGS = 20
GUARD_LAYERS = frozenset({"azure", "llama_guard"})
"""Layers that may fail open; those that run in the guard itself may not."""
DEFAULT_ROLES = ("developer",)
DEFAULT_OVERLAP_SECONDS = 24 * 3600
LONGEST_OVERLAP_SECONDS = 30 * 24 * 3600


def policy_of(message: tenant_pb2.Policy) -> Policy:
    """What a tenant may do."""
    return Policy(
        allowed_models=_names("policy.allowed_models", message.allowed_models),
        allowed_deployments=_names("policy.allowed_deployments", message.allowed_deployments),
        residency=enum_word("policy.residency", chat_pb2.DataResidency, message.residency),
        cache=enum_word("policy.cache", tenant_pb2.CachePolicy, message.cache),
        cache_limits=cache_limits_of(message.cache_limits),
        guard_fail_open=message.guard_fail_open,
        tier=enum_word("policy.tier", chat_pb2.Tier, message.tier),
        routing_strategy=enum_word("policy.routing_strategy", chat_pb2.RoutingStrategy, message.routing_strategy),
        tags=_names("policy.tags", message.tags),
        compliance_packs=_packs("policy.compliance_packs", message.compliance_packs),
        violation_days=check_between("policy.violation_days", message.violation_days, 0, MOST_VIOLATION_DAYS),
        keep_contents=message.keep_contents,
        guard=_guard(message.guard),
        rate_limits=rate_limits_of(message.rate_limits),
        max_cost_micros=check_micros("policy.max_cost_micros", message.max_cost_micros),
    )


def roles_of(roles: Sequence[access_pb2.Role.ValueType]) -> tuple[str, ...]:
    """Words of the roles of a key, each once; developer when there are none."""
    words = {enum_word("roles", access_pb2.Role, role) for role in roles}
    if "unspecified" in words:
        raise FieldInvalid("roles", "must not hold ROLE_UNSPECIFIED")
    return tuple(sorted(words)) or DEFAULT_ROLES


def tags_of(tags: Sequence[str]) -> tuple[str, ...]:
    """Words to report by, in order, each once."""
    check_number_of("tags", len(tags), most=MOST_TAGS)
    return tuple(sorted({check_text("tags", tag, longest=63) for tag in tags}))


def tenant_filter_of(request: tenant_pb2.ListTenantsRequest, *, only: str | None) -> TenantFilter:
    """Which tenants to list, of those the caller may see."""
    tag = check_text("tag", request.tag, required=False)
    return TenantFilter(only, tag, check_text("text", request.text, required=False), request.show_deleted)


def key_filter_of(request: tenant_pb2.ListKeysRequest) -> KeyFilter:
    """Which keys to list."""
    team_id, user_id, tag = (
        check_text(field, getattr(request, field), required=False) for field in ("team_id", "user_id", "tag")
    )
    return KeyFilter(team_id, user_id, tag, request.live)


def rotation_of(request: tenant_pb2.RotateKeyRequest) -> tuple[timedelta, datetime | None]:
    """How long the old key stays good, and when the new one ends; None leaves that to the old one's lifetime."""
    overlap = request.overlap if request.HasField("overlap") else Duration(seconds=DEFAULT_OVERLAP_SECONDS)
    if not 0 <= overlap.ToNanoseconds() <= LONGEST_OVERLAP_SECONDS * 10**9:
        raise FieldInvalid("overlap", f"must be from 0 to {LONGEST_OVERLAP_SECONDS} seconds")
    expires = time_of("expire_time", request.expire_time) if request.HasField("expire_time") else None
    return overlap.ToTimedelta(), expires


def tenant_message(tenant: Tenant) -> tenant_pb2.Tenant:
    """A tenant."""
    policy = tenant_pb2.Policy(
        allowed_models=tenant.policy.allowed_models,
        allowed_deployments=tenant.policy.allowed_deployments,
        residency=enum_value(chat_pb2.DataResidency, tenant.policy.residency),
        cache=enum_value(tenant_pb2.CachePolicy, tenant.policy.cache),
        cache_limits=cache_limits_message(tenant.policy.cache_limits),
        guard_fail_open=tenant.policy.guard_fail_open,
        tier=enum_value(chat_pb2.Tier, tenant.policy.tier),
        routing_strategy=enum_value(chat_pb2.RoutingStrategy, tenant.policy.routing_strategy),
        tags=tenant.policy.tags,
        compliance_packs=tenant.policy.compliance_packs,
        violation_days=tenant.policy.violation_days,
        keep_contents=tenant.policy.keep_contents,
        guard=_guard_message(tenant.policy.guard, tenant.guard_rules_version),
        rate_limits=rate_limits_message(tenant.policy.rate_limits),
        max_cost_micros=tenant.policy.max_cost_micros,
    )
    return tenant_pb2.Tenant(
        id=tenant.id,
        display_name=tenant.display_name,
        policy=policy,
        create_time=timestamp(tenant.create_time),
        delete_time=timestamp(tenant.delete_time) if tenant.delete_time else None,
        etag=str(tenant.version),
    )


def key_message(key: Key) -> tenant_pb2.Key:
    """A key, without its token."""
    return tenant_pb2.Key(
        id=key.id,
        tenant_id=key.tenant_id,
        display_name=key.display_name,
        roles=[enum_value(access_pb2.Role, role) for role in key.roles],
        create_time=timestamp(key.create_time),
        expire_time=timestamp(key.expire_time),
        revoke_time=timestamp(key.revoke_time) if key.revoke_time else None,
        team_id=key.team_id,
        tags=key.tags,
        policy=key_policy_message(key.policy),
        user_id=key.user_id,
        etag=str(key.version),
    )


def change_message(change: PolicyChange) -> tenant_pb2.WatchPoliciesResponse:
    """A change of policies."""
    now = datetime.now(UTC)
    revoked = [key.id for key in change.keys if key.revoked(now)]
    return tenant_pb2.WatchPoliciesResponse(
        tenants=[tenant_message(tenant) for tenant in change.tenants],
        revoked_key_ids=revoked,
        revocations=revocation_messages(change.keys),
        keys=[key_message(key.within_team()) for key in change.keys if key.id not in revoked],
    )


def revocation_messages(keys: Iterable[Key]) -> list[tenant_pb2.Revocation]:
    """Those of the keys that are revoked or will be."""
    return [
        tenant_pb2.Revocation(key_id=key.id, revoke_time=timestamp(key.revoke_time)) for key in keys if key.revoke_time
    ]


def deletion_messages(tenants: Iterable[Tenant]) -> list[tenant_pb2.TenantDeletion]:
    """Those of the tenants that are deleted."""
    return [
        tenant_pb2.TenantDeletion(tenant_id=tenant.id, delete_time=timestamp(tenant.delete_time))
        for tenant in tenants
        if tenant.delete_time
    ]


def _packs(field: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(check_listed(field, name, pack_names()) for name in names))


def _guard(message: tenant_pb2.GuardPolicy) -> dict[str, Any]:
    if not 0 <= message.sampled_share <= 1:
        raise FieldInvalid("policy.guard.sampled_share", "must be from 0 to 1")
    if unknown := sorted(set(message.fail_open_layers) - GUARD_LAYERS):
        known = ", ".join(sorted(GUARD_LAYERS))
        raise FieldInvalid("policy.guard.fail_open_layers", f"knows no {unknown[0]!r}, only {known}")
    if message.HasField("escalation_budget") and message.escalation_budget.ToNanoseconds() <= 0:
        raise FieldInvalid("policy.guard.escalation_budget", "must be more than 0")
    words = MessageToDict(message, preserving_proto_field_name=True)
    words.pop("rules_version", None)  # it says which rules there are, and changes none
    return words


def _guard_message(words: Mapping[str, Any], rules_version: str) -> tenant_pb2.GuardPolicy | None:
    if not (words or rules_version):
        return None
    return ParseDict({**words, "rules_version": rules_version}, tenant_pb2.GuardPolicy(), ignore_unknown_fields=True)


def _names(field: str, names: Sequence[str]) -> tuple[str, ...]:
    check_number_of(field, len(names), most=MOST_NAMES)
    return tuple(check_text(field, name) for name in names)
