"""Tells gateways what every tenant may do, and which keys are revoked, as soon as it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from meshkit.errors import DependencyUnavailable
from services.billing.tenants.tenant import Policy, Tenant


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """Tenants that are new or changed, and keys revoked."""

    tenants: list[Tenant]
    revoked_key_ids: list[str]


@dataclass(slots=True, eq=False)
class _Watcher:
    """What one watcher has not been told yet: merged by tenant, so never larger than the whole."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    revoked_key_ids: set[str] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> PolicyChange:
        """Everything not told yet."""
        change = PolicyChange(list(self.tenants.values()), sorted(self.revoked_key_ids))
        self.tenants, self.revoked_key_ids = {}, set()
        self.changed.clear()
        return change


class Policies:
    """All tenants and revocations in memory, and everyone who watches them."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._revoked: dict[str, datetime] = {}
        self._watchers: set[_Watcher] = set()
        self.live = False
        """Whether changes are known as they happen."""

    def reset(self, tenants: Iterable[Tenant], revoked: Mapping[str, datetime]) -> None:
        """Take the database's word for everything, and tell it to every watcher.

        `revoked` gives the time each key would have expired.
        """
        self._tenants = {tenant.id: tenant for tenant in tenants}
        self._revoked = dict(revoked)
        self.live = True
        self._tell(self._tenants, self._unexpired())

    def of(self, tenant_id: str) -> Policy:
        """What a tenant may do, as far as is known now; the defaults for one that is not known."""
        tenant = self._tenants.get(tenant_id)
        return tenant.policy if tenant else Policy()

    def put_tenant(self, tenant: Tenant) -> None:
        """A tenant is new or changed."""
        self._tenants[tenant.id] = tenant
        self._tell({tenant.id: tenant}, set())

    def put_revoked(self, key_id: str, expire_time: datetime) -> None:
        """A key is revoked."""
        self._revoked[key_id] = expire_time
        self._tell({}, {key_id})

    def lose(self) -> None:
        """Changes are no longer known: end every watch, so that nobody takes old policies for current ones."""
        self.live = False
        for watcher in self._watchers:
            watcher.changed.set()

    async def watch(self) -> AsyncGenerator[PolicyChange, None]:
        """Everything, then each change; a watcher that is slow gets several at once. Ends only by an error.

        Raises:
            DependencyUnavailable: If the database is away for longer than a moment.
        """
        watcher = _Watcher(dict(self._tenants), self._unexpired())
        self._watchers.add(watcher)
        try:
            self._check_live()
            yield watcher.take()
            while True:
                await watcher.changed.wait()
                self._check_live()
                yield watcher.take()
        finally:
            self._watchers.discard(watcher)

    def _check_live(self) -> None:
        if not self.live:
            raise DependencyUnavailable("Policy changes are not known now: watch again.", retry_after_seconds=1)

    def _tell(self, tenants: Mapping[str, Tenant], revoked_key_ids: set[str]) -> None:
        for watcher in self._watchers:
            watcher.tenants.update(tenants)
            watcher.revoked_key_ids |= revoked_key_ids
            watcher.changed.set()

    def _unexpired(self) -> set[str]:
        now = datetime.now(UTC)
        return {key_id for key_id, expire_time in self._revoked.items() if expire_time > now}
