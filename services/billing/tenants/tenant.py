"""What a tenant and a key are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from meshkit.errors import ResourceNotFound
from meshkit.revocation import SKEW_SECONDS


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """What the cache keeps for a tenant; zeros and None are the cache's own limits."""

    default_ttl_seconds: float = 0.0
    min_ttl_seconds: float = 0.0
    max_ttl_seconds: float = 0.0
    largest_answer_bytes: int = 0
    highest_temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a tenant may do; the defaults allow everything."""

    allowed_models: tuple[str, ...] = ()
    allowed_deployments: tuple[str, ...] = ()
    residency: str = "unspecified"
    cache: str = "unspecified"
    cache_limits: CacheLimits = CacheLimits()
    guard_fail_open: bool = False
    compliance_packs: tuple[str, ...] = ()
    violation_days: int = 0
    """How long violations are kept; 0 leaves it to the room."""
    keep_contents: bool = False
    tier: str = "unspecified"
    routing_strategy: str = "unspecified"
    tags: tuple[str, ...] = ()
    guard: Mapping[str, Any] = field(default_factory=dict)
    """What the guard does beyond its rules, in the words of the message `GuardPolicy` as JSON."""
    rate_limits: Mapping[str, Any] = field(default_factory=dict)
    """How fast it may ask, in the words of the message `TenantRateLimits` as JSON."""
    max_cost_micros: int = 0
    """The most that one request may cost; 0 is no limit."""


@dataclass(frozen=True, slots=True)
class NewTenant:
    """A tenant to make, with its budget."""

    id: str
    display_name: str
    budget_limit_micros: int
    currency_code: str
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer of the mesh."""

    id: str
    display_name: str
    policy: Policy
    create_time: datetime
    guard_rules_version: str = ""
    """Of the rules that the guard keeps for it; empty when there are none."""
    delete_time: datetime | None = None
    version: int = 1
    """Counts changes."""


@dataclass(frozen=True, slots=True)
class GuardRules:
    """A tenant's own rules, in the guard's words; empty when it has none."""

    rules_json: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class TenantFilter:
    """Which tenants; empty means any."""

    only: str | None = None
    tag: str = ""
    text: str = ""
    """In the id or name, whatever its case."""
    deleted: bool = False
    """Also those that are deleted."""


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys of a tenant; empty means any."""

    team_id: str = ""
    user_id: str = ""
    tag: str = ""
    live: bool = False
    """Neither expired nor revoked."""


@dataclass(frozen=True, slots=True)
class Key:
    """A virtual key, without its token."""

    id: str
    tenant_id: str
    display_name: str
    roles: tuple[str, ...]
    create_time: datetime
    expire_time: datetime
    revoke_time: datetime | None = None
    team_id: str = ""
    """Team that its spending counts for; empty means none."""
    tags: tuple[str, ...] = ()
    """Words that its spending can be reported by."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """What it may do beyond its roles, in the words of the message `KeyPolicy` as JSON."""
    user_id: str = ""
    """Who uses it; empty means nobody in particular."""
    version: int = 1
    """Counts changes."""
    team_models: tuple[str, ...] = ()
    """Models that its team may name, as far as it was asked for; empty means all."""
    budget_key_ids: tuple[str, ...] = ()
    """Keys that it was rotated from and that had budgets: it spends from these too."""

    def within_team(self) -> Key:
        """The key as gateways are to take it: its own models narrowed to those of its team."""
        own = tuple(self.policy.get("allowed_models", ()))
        # A key that is left with no model may use none, not all: the empty name is no model's.
        both = tuple(model for model in own if model in self.team_models) or ("",)
        models = both if own and self.team_models else own or self.team_models
        return replace(self, policy={**self.policy, "allowed_models": list(models)}) if models else self

    def revoked(self, now: datetime) -> bool:
        """Whether it is no longer good; the database's clock may be a little ahead of ours."""
        return self.revoke_time is not None and self.revoke_time <= now + timedelta(seconds=SKEW_SECONDS)

    @property
    def restricted(self) -> bool:
        """Whether gateways must know more of it than its token says."""
        return bool(self.team_id or self.user_id or self.policy)


def tenant_unknown(tenant_id: str) -> ResourceNotFound:
    """The error for a tenant that does not exist or is not the caller's: the two look the same."""
    return ResourceNotFound(f"There is no tenant {tenant_id!r}.", resource=f"tenants/{tenant_id}")


def tenant_deleted(tenant_id: str) -> ResourceNotFound:
    """The error for a change of a tenant that is deleted."""
    return ResourceNotFound(f"The tenant {tenant_id!r} is deleted: undelete it first.", resource=f"tenants/{tenant_id}")


def key_unknown(tenant_id: str, key_id: str) -> ResourceNotFound:
    """The error for a key that does not exist, or not in this tenant."""
    return ResourceNotFound(
        f"Tenant {tenant_id!r} has no key {key_id!r}.", resource=f"tenants/{tenant_id}/keys/{key_id}"
    )
