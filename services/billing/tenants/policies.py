"""Tells gateways what every tenant may do, and which keys are revoked, as soon as it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from meshkit.errors import DependencyUnavailable
from services.billing.tenants.tenant import Key, Policy, Tenant


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """Tenants and keys that are new or changed; of keys those alone that are revoked, will be, or are restricted."""

    tenants: list[Tenant]
    keys: list[Key]


@dataclass(slots=True, eq=False)
class _Watcher:
    """What one watcher has not been told yet: merged by tenant and key, so never larger than the whole."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> PolicyChange:
        """Everything not told yet."""
        change = PolicyChange(list(self.tenants.values()), list(self.keys.values()))
        self.tenants, self.keys = {}, {}
        self.changed.clear()
        return change


class Policies:
    """All tenants, those deleted lately too, and revocations in memory, and everyone who watches them.

    Of keys those are held that gateways cannot judge by their tokens alone.
    """

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._deleted: dict[str, Tenant] = {}
        self._keys: dict[str, Key] = {}
        self._watchers: set[_Watcher] = set()
        self.live = False
        """Whether changes are known as they happen."""

    def reset(self, tenants: Iterable[Tenant], keys: Iterable[Key]) -> None:
        """Take the database's word for everything, and tell it to every watcher."""
        before, self._tenants, self._deleted = self._tenants, {}, {}
        for tenant in tenants:
            self._place(tenant)
        self._keys = {key.id: key for key in keys}
        self.live = True
        # Whoever is not even among the deleted was deleted all the same.
        missing = before.keys() - self._tenants.keys() - self._deleted.keys()
        gone = [replace(before[name], delete_time=datetime.now(UTC)) for name in missing]
        self._tell([*self._tenants.values(), *self._deleted.values(), *gone], self._unexpired())

    def of(self, tenant_id: str) -> Policy:
        """What a tenant may do, as far as is known now; the defaults for one that is not known."""
        tenant = self._tenants.get(tenant_id)
        return tenant.policy if tenant else Policy()

    def put_tenant(self, tenant: Tenant) -> None:
        """A tenant is new, changed or deleted."""
        self._place(tenant)
        self._tell([tenant], [])

    def put_key(self, key: Key) -> None:
        """A key is new or changed; one that its token says everything about concerns nobody."""
        if key.revoke_time or key.restricted or key.id in self._keys:
            self._keys[key.id] = key
            self._tell([], [key])

    def revoked(self, key_id: str) -> bool:
        """Whether a key is revoked, as far as is known now."""
        key = self._keys.get(key_id)
        return key is not None and key.revoked(datetime.now(UTC))

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
        watcher = _Watcher({**self._tenants, **self._deleted}, {key.id: key for key in self._unexpired()})
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

    def _place(self, tenant: Tenant) -> None:
        here, there = (self._deleted, self._tenants) if tenant.delete_time else (self._tenants, self._deleted)
        here[tenant.id] = tenant
        there.pop(tenant.id, None)

    def _check_live(self) -> None:
        if not self.live:
            raise DependencyUnavailable("Policy changes are not known now: watch again.", retry_after_seconds=1)

    def _tell(self, tenants: Collection[Tenant], keys: Collection[Key]) -> None:
        for watcher in self._watchers:
            watcher.tenants.update((tenant.id, tenant) for tenant in tenants)
            watcher.keys.update((key.id, key) for key in keys)
            watcher.changed.set()

    def _unexpired(self) -> list[Key]:
        now = datetime.now(UTC)
        return [key for key in self._keys.values() if key.expire_time > now]
