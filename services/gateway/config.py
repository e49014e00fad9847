"""Settings of the gateway."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from meshkit.settings import ServiceSettings


class GatewayConfig(ServiceSettings):
    """Everything that differs between one deployment of the gateway and another."""

    model_config = SettingsConfigDict(env_prefix="LLMMESH_GATEWAY_", frozen=True)

    cache_target: str = ""
    """Address of the cache; empty reaches it through `mesh_target`."""
    guard_target: str = ""
    """Address of the guard; empty reaches it through `mesh_target`."""
    billing_target: str = ""
    """Address of billing; empty reaches it through `mesh_target`."""
    router_target: str = ""
    """Address of the router; empty reaches it through `mesh_target`."""

    default_model: str = "smollm2-135m"
    """Model of a short-form request that names none."""
    default_max_output_tokens: int = Field(default=4096, ge=1)
    """Limit of an answer whose caller sets none, where the model's context has room for it."""
    currency_code: str = Field(default="RUB", pattern="^[A-Z]{3}$")
    """ISO 4217 code printed beside the price 0 of a cached answer."""

    redis_url: SecretStr = SecretStr("")
    """Redis that counts for the rate limits of all gateways; empty counts in each by itself."""
    limits_timeout_seconds: float = Field(default=0.05, gt=0)
    """Longest wait for Redis; after it this gateway counts by itself for a while."""
    limits_local_share: float = Field(default=0.5, gt=0, le=1)
    """Share of each rate limit that this gateway grants by itself: one over their number keeps the limit."""
    stream_lease_seconds: float = Field(default=30.0, gt=0)
    """How soon the streams of a gateway that died count no longer; it renews the leases of those that go on."""

    answer_timeout_seconds: float = Field(default=300.0, gt=0)
    """Longest that an answer may take from the router."""
    cache_timeout_seconds: float = Field(default=0.5, gt=0)
    """Longest wait for the exact cache; after it the request goes on without."""
    semantic_timeout_seconds: float = Field(default=1.0, gt=0)
    """Longest wait for the semantic cache; after it the request goes on without."""
    flight_seconds: float = Field(default=30.0, ge=0)
    """Longest wait for another gateway's answer to the same question, and how soon it is asked anew if that one died;
    0 shares none. Within a process the wait is `answer_timeout_seconds`."""
    guard_timeout_seconds: float = Field(default=3.0, gt=0)
    """Longest wait for a verdict."""
    billing_timeout_seconds: float = Field(default=3.0, gt=0)
    """Longest wait for a reservation or a settlement."""

    policy_max_stale_seconds: float = Field(default=300.0, ge=0)
    """How long known tenants keep working while billing is away."""
    policy_arrival_seconds: float = Field(default=1.0, ge=0)
    """Longest wait for the policy of a tenant nobody has heard of, who may have been made a moment ago."""
    policy_resync_seconds: float = Field(default=60.0, gt=0)
    """How often the stream of policies is opened afresh, so that a frozen one cannot pass for a quiet one."""
    catalogue_refresh_seconds: float = Field(default=5.0, gt=0)
    """How often the models are asked for."""
    guard_policy_refresh_seconds: float = Field(default=3.0, gt=0)
    """How often the version of the guard's policy is asked for."""
    guard_policy_max_stale_seconds: float = Field(default=60.0, ge=0)
    """How long cached answers are served while the guard is away."""

    record_flush_seconds: float = Field(default=0.2, gt=0)
    """How long usage rows and audit events wait for company."""
    record_capacity: int = Field(default=50_000, ge=1)
    """Usage rows and audit events kept while billing is away, each."""
    settlement_capacity: int = Field(default=10_000, ge=1)
    """Settlements kept while billing is away."""
    store_capacity: int = Field(default=1_000, ge=1)
    """Answers on their way to the cache; as many contents on their way to billing, of tenants that want them kept."""
    outbox_drain_seconds: float = Field(default=5.0, ge=0)
    """Longest that SIGTERM waits, after the last call, for all of these to be delivered."""
