"""What each tenant may do, held in memory and kept current by a stream from billing."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.deadline import time_left
from meshkit.errors import BillingUnavailable, CredentialInvalid, DependencyUnavailable
from meshkit.identity import BOUND_KEY, Identity
from meshkit.log import get_logger
from meshkit.revocation import Revocations
from services.gateway.coalescing import Coalescing
from services.gateway.limits.scope import KeyTies, Limits, RateLimits, Scope
from services.gateway.measures import POLICY_AGE_SECONDS

PAUSE_SECONDS = 0.25
"""Between a broken stream and the next attempt."""
RENEWAL_SECONDS = 0.05
"""Between a stream that was ended on purpose and the next."""
MOST_ASKED = 1000
"""Keys asked for at once."""

Ask: TypeAlias = Callable[[Identity], Coroutine[Any, Any, tenant_pb2.Key | None]]
"""Finds out what a caller's key may do; None when there is no such key."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What one tenant may do."""

    allowed_models: frozenset[str] = frozenset()
    """Empty means all."""
    allowed_deployments: frozenset[str] = frozenset()
    """Empty means all."""
    residency: chat_pb2.DataResidency.ValueType = chat_pb2.DATA_RESIDENCY_UNSPECIFIED
    cache_exact: bool = True
    cache_semantic: bool = True
    guard_fail_open: bool = False
    tier: chat_pb2.Tier.ValueType = chat_pb2.TIER_UNSPECIFIED
    routing_strategy: chat_pb2.RoutingStrategy.ValueType = chat_pb2.ROUTING_STRATEGY_UNSPECIFIED
    tags: tuple[str, ...] = ()
    keep_contents: bool = False
    version: str = ""
    """Changes whenever anything in it does."""
    cache_limits: tenant_pb2.CacheLimits | None = field(default=None, compare=False)
    """None means the cache's own. A message cannot be hashed, and no offer depends on it."""
    guard: tenant_pb2.GuardPolicy = field(default_factory=tenant_pb2.GuardPolicy, compare=False)
    rate_limits: RateLimits | None = field(default=None, compare=False)
    """None when nothing is limited."""
    max_cost_micros: int | None = field(default=None, compare=False)
    """The most that one request may cost; None is no limit."""

    @classmethod
    def from_message(cls, policy: tenant_pb2.Policy) -> TenantPolicy:
        """Read the policy a tenant was given."""
        return cls(
            allowed_models=frozenset(policy.allowed_models),
            allowed_deployments=frozenset(policy.allowed_deployments),
            residency=policy.residency,
            cache_exact=policy.cache != tenant_pb2.CACHE_POLICY_OFF,
            cache_semantic=policy.cache in (tenant_pb2.CACHE_POLICY_UNSPECIFIED, tenant_pb2.CACHE_POLICY_SEMANTIC),
            guard_fail_open=policy.guard_fail_open,
            tier=policy.tier,
            routing_strategy=policy.routing_strategy,
            tags=tuple(policy.tags),
            keep_contents=policy.keep_contents,
            version=hashlib.sha256(policy.SerializeToString(deterministic=True)).hexdigest()[:16],
            cache_limits=policy.cache_limits if policy.HasField("cache_limits") else None,
            guard=policy.guard,
            rate_limits=RateLimits.from_message(policy.rate_limits),
            max_cost_micros=policy.max_cost_micros or None,
        )

    def of_key(self, key: tenant_pb2.Key) -> TenantPolicy:
        """The policy as one key meets it, whose own narrows it."""
        own = frozenset(key.policy.allowed_models)
        # A key whose models its tenant has lost may use none, not all: the empty name is no model's.
        models = (own & self.allowed_models or frozenset({""})) if own and self.allowed_models else own
        ties = KeyTies(key.team_id, key.user_id, Limits.from_message(key.policy.rate_limits))
        limits = replace(self.rate_limits or RateLimits(), ties=ties)
        return replace(
            self, allowed_models=models or self.allowed_models, rate_limits=limits if limits.limited else None
        )

    def scopes(self, caller: Identity) -> Sequence[Scope]:
        """Where a request of the caller is counted; nowhere when nothing limits it."""
        return self.rate_limits.scopes(caller) if self.rate_limits else ()

    def preferences(self) -> router_pb2.RoutePreferences:
        """How the router is to choose for this tenant."""
        return router_pb2.RoutePreferences(tier=self.tier, strategy=self.routing_strategy, tags=self.tags)


class PolicyTable:
    """Policies by tenant and the revoked keys.

    While the stream is broken the table stays good for `max_stale_seconds`; after that nobody is admitted, and the
    refusal says that we are at fault, not the key.
    """

    def __init__(
        self, ask: Ask, max_stale_seconds: float, arrival_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._max_stale_seconds = max_stale_seconds
        self._arrival_seconds = arrival_seconds
        self._clock = clock
        self._changed = asyncio.Event()
        self._policies: dict[str, TenantPolicy] = {}
        self._keys: dict[str, dict[str, tenant_pb2.Key]] = {}
        self._of_keys: dict[tuple[str, str], TenantPolicy] = {}
        self._revocations = Revocations()
        self._asking: Coalescing[tenant_pb2.Key | None] = Coalescing()
        self._complete = False
        self._broken_at: float | None = None

    @property
    def usable(self) -> bool:
        """Whether callers can be judged by it."""
        return self._complete and self._age_seconds() <= self._max_stale_seconds

    def take(self, message: tenant_pb2.WatchPoliciesResponse, *, everything: bool) -> None:
        """Take in a message of the stream; `everything` for a stream's first, which replaces the table."""
        if everything:
            self._policies, self._keys, self._of_keys = {}, {}, {}
            self._complete, self._broken_at = True, None
            POLICY_AGE_SECONDS.set(0)
        for tenant in message.tenants:
            self._take_tenant(tenant)
        for key in message.keys:
            self._keys.setdefault(key.tenant_id, {})[key.id] = key
        self._narrow(message.keys)
        for tenant in message.tenants:
            self._narrow(self._keys.get(tenant.id, {}).values())
        self._revocations.take(message.revocations, everything=everything)
        self._changed.set()
        self._changed = asyncio.Event()

    def broken(self) -> None:
        """Note that the stream ended; what is known grows old from now on."""
        if self._broken_at is None:
            self._broken_at = self._clock()
        POLICY_AGE_SECONDS.set(self._age_seconds())

    async def admit(self, caller: Identity) -> TenantPolicy:
        """The policy of the caller's tenant, as its key narrows it.

        A tenant that was made a moment ago is waited for: its policy may be on its way. A key made with a policy of its
        own that is not here yet is asked for, once for all who show it.

        Raises:
            CredentialInvalid: If the key is revoked or its tenant unknown.
            BillingUnavailable: If too little is known to say.
        """
        if not self.usable:
            raise BillingUnavailable("Keys cannot be checked right now: retry in a moment.", retry_after_seconds=2)
        self._check_unrevoked(caller.key_id)
        of_key = self._of_keys.get((caller.tenant_id, caller.key_id))
        if of_key is not None:
            return of_key
        policy = self._policies.get(caller.tenant_id) or await self._arrival(caller.tenant_id)
        return await self._of_new_key(caller) if caller.key_id.startswith(BOUND_KEY) else policy

    def revoked(self, key_id: str) -> bool:
        """Whether a key is no longer good."""
        return self._revocations.revoked(key_id)

    def get(self, tenant_id: str) -> TenantPolicy | None:
        """The policy of any tenant, as far as it is known."""
        return self._policies.get(tenant_id)

    def _take_tenant(self, tenant: tenant_pb2.Tenant) -> None:
        if not tenant.HasField("delete_time"):
            self._policies[tenant.id] = TenantPolicy.from_message(tenant.policy)
            return
        self._policies.pop(tenant.id, None)
        for key_id in self._keys.pop(tenant.id, {}):
            self._of_keys.pop((tenant.id, key_id), None)

    def _narrow(self, keys: Iterable[tenant_pb2.Key]) -> None:
        """Work out what keys may do, as far as their tenants are known."""
        for key in keys:
            policy = self._policies.get(key.tenant_id)
            if policy is not None:
                self._of_keys[key.tenant_id, key.id] = policy.of_key(key)

    async def _of_new_key(self, caller: Identity) -> TenantPolicy:
        if len(self._asking) >= MOST_ASKED:
            raise BillingUnavailable("Too many new keys at once: retry in a moment.", retry_after_seconds=1)
        name = (caller.tenant_id, caller.key_id)
        key = await self._asking.join(name, lambda: self._ask(caller))
        # What was pushed meanwhile is newer.
        if key is not None and key.id not in self._keys.get(key.tenant_id, {}):
            ends = [key.revoke_time] if key.HasField("revoke_time") else []
            revocations = [tenant_pb2.Revocation(key_id=key.id, revoke_time=end) for end in ends]
            self.take(tenant_pb2.WatchPoliciesResponse(keys=[key], revocations=revocations), everything=False)
        self._check_unrevoked(caller.key_id)
        policy = self._of_keys.get(name)
        if policy is None:
            raise CredentialInvalid("This API key is none of ours: ask for a new one.")
        return policy

    def _check_unrevoked(self, key_id: str) -> None:
        if self.revoked(key_id):
            raise CredentialInvalid("This API key is revoked: ask for a new one.")

    async def _arrival(self, tenant_id: str) -> TenantPolicy:
        try:
            async with asyncio.timeout(time_left(self._arrival_seconds)):
                while tenant_id not in self._policies:
                    await self._changed.wait()
        except TimeoutError as error:
            raise CredentialInvalid("This API key belongs to no tenant of ours: ask for a new one.") from error
        return self._policies[tenant_id]

    def _age_seconds(self) -> float:
        return 0.0 if self._broken_at is None else self._clock() - self._broken_at


async def follow_policies(
    table: PolicyTable, changes: Callable[[], AsyncIterator[tenant_pb2.WatchPoliciesResponse]]
) -> None:
    """Keep the table current until cancelled; a stream that ends is opened again."""
    while True:
        pause, everything = RENEWAL_SECONDS, True
        try:
            async for message in changes():
                table.take(message, everything=everything)
                everything = False
        except DependencyUnavailable as error:
            log.warning("policies_unreachable", error=str(error))
            pause = PAUSE_SECONDS
        table.broken()
        await asyncio.sleep(pause)
