"""Tenants and their keys in Postgres. Triggers announce every change to whoever listens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy import RowMapping, func, insert, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as insert_or_skip

from services.billing.budgets.budget import NewBudget
from services.billing.database.budgets import insert_budget
from services.billing.database.engine import Database
from services.billing.database.schema import guard_rules, keys, tenants
from services.billing.pagination import Position
from services.billing.tenants.tenant import CacheLimits, GuardRules, Key, NewTenant, Policy, Tenant

_PUT_RULES = text("""
WITH changed AS (UPDATE tenants SET guard_rules_version = :version WHERE id = :tenant_id RETURNING id)
INSERT INTO guard_rules (tenant_id, rules_json, version) SELECT id, :rules_json, :version FROM changed
ON CONFLICT (tenant_id) DO UPDATE SET rules_json = excluded.rules_json, version = excluded.version
RETURNING tenant_id
""")


class TenantStore:
    """Tenants in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, new: NewTenant) -> Tenant | None:
        """Make a tenant and its first budget; None when the id is taken."""
        row = {
            "id": new.id,
            "display_name": new.display_name,
            "currency_code": new.currency_code,
            **_columns(new.policy),
        }
        statement = insert_or_skip(tenants).values(row).on_conflict_do_nothing().returning(tenants)
        async with self._database.transaction("create_tenant") as connection:
            made = (await connection.execute(statement)).mappings().one_or_none()
            if made is None:
                return None
            await insert_budget(connection, NewBudget(new.id, new.budget_limit_micros))
        return _tenant(made)

    async def get(self, tenant_id: str) -> Tenant | None:
        """One tenant."""
        rows = await self._database.fetch("get_tenant", select(tenants).where(tenants.c.id == tenant_id))
        return _tenant(rows[0]) if rows else None

    async def page(self, *, most: int, after: str, only: str | None) -> list[Tenant]:
        """At most `most` tenants by id, after the id `after`; `only` one when it is given."""
        statement = select(tenants).where(tenants.c.id > after).order_by(tenants.c.id).limit(most)
        if only is not None:
            statement = statement.where(tenants.c.id == only)
        return [_tenant(row) for row in await self._database.fetch("list_tenants", statement)]

    async def all(self) -> list[Tenant]:
        """Every tenant."""
        return [_tenant(row) for row in await self._database.fetch("all_tenants", select(tenants))]

    async def update(self, tenant_id: str, *, display_name: str | None, policy: Policy | None) -> Tenant | None:
        """Change what is given; None when there is no such tenant."""
        columns = dict(_columns(policy)) if policy else {}
        if display_name is not None:
            columns["display_name"] = display_name
        if not columns:
            return await self.get(tenant_id)
        statement = update(tenants).where(tenants.c.id == tenant_id).values(columns).returning(tenants)
        rows = await self._database.fetch("update_tenant", statement)
        return _tenant(rows[0]) if rows else None

    async def put_rules(self, tenant_id: str, rules: GuardRules) -> bool:
        """Put a tenant's guard rules in place of those it has; False when there is no such tenant."""
        row = {"tenant_id": tenant_id, "rules_json": rules.rules_json, "version": rules.version}
        return bool(await self._database.fetch("put_guard_rules", _PUT_RULES, row))

    async def rules(self, tenant_id: str) -> GuardRules:
        """A tenant's guard rules."""
        statement = select(guard_rules).where(guard_rules.c.tenant_id == tenant_id)
        rows = await self._database.fetch("get_guard_rules", statement)
        return GuardRules(rows[0]["rules_json"], rows[0]["version"]) if rows else GuardRules()


class KeyStore:
    """Virtual keys in Postgres: their ids, never their tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key: Key) -> bool:
        """Write a key; False when there is no such tenant."""
        source = select(tenants.c.id).where(tenants.c.id == key.tenant_id)
        row = {
            "id": key.id,
            "tenant_id": key.tenant_id,
            "display_name": key.display_name,
            "roles": list(key.roles),
            "create_time": key.create_time,
            "expire_time": key.expire_time,
            "team_id": key.team_id,
            "tags": list(key.tags),
            "policy": dict(key.policy),
            "user_id": key.user_id,
        }
        async with self._database.transaction("create_key") as connection:
            if (await connection.execute(source)).one_or_none() is None:
                return False
            await connection.execute(insert(keys).values(row))
        return True

    async def get(self, key_id: str) -> Key | None:
        """One key, whoever's it is."""
        rows = await self._database.fetch("get_key", select(keys).where(keys.c.id == key_id))
        return _key(rows[0]) if rows else None

    async def page(self, tenant_id: str, *, most: int, before: Position | None) -> list[Key]:
        """At most `most` keys of a tenant, newest first, older than `before`."""
        statement = select(keys).where(keys.c.tenant_id == tenant_id)
        if before:
            statement = statement.where(tuple_(keys.c.create_time, keys.c.id) < (before.time, before.id))
        statement = statement.order_by(keys.c.create_time.desc(), keys.c.id.desc()).limit(most)
        return [_key(row) for row in await self._database.fetch("list_keys", statement)]

    async def change(
        self, tenant_id: str, key_id: str, *, display_name: str | None, policy: Mapping[str, Any] | None
    ) -> Key | None:
        """Change what is given; None when the tenant has no such key."""
        columns: dict[str, Any] = {} if policy is None else {"policy": dict(policy)}
        if display_name is not None:
            columns["display_name"] = display_name
        one = (keys.c.tenant_id == tenant_id, keys.c.id == key_id)
        statement = update(keys).where(*one).values(columns).returning(keys) if columns else select(keys).where(*one)
        rows = await self._database.fetch("change_key", statement)
        return _key(rows[0]) if rows else None

    async def revoke(self, tenant_id: str, key_id: str, *, after: timedelta = timedelta()) -> Key | None:
        """Revoke a key for good; the earliest time counts. None when the tenant has no such key."""
        # LEAST passes over NULL.
        statement = (
            update(keys)
            .where(keys.c.tenant_id == tenant_id, keys.c.id == key_id)
            .values(revoke_time=func.least(keys.c.revoke_time, func.now() + after))
            .returning(keys)
        )
        rows = await self._database.fetch("revoke_key", statement)
        return _key(rows[0]) if rows else None

    async def revoke_named(self, tenant_id: str, display_name: str) -> None:
        """Revoke every key of a tenant that goes by a name."""
        statement = (
            update(keys)
            .where(keys.c.tenant_id == tenant_id, keys.c.display_name == display_name, keys.c.revoke_time.is_(None))
            .values(revoke_time=func.now())
        )
        await self._database.fetch("revoke_keys", statement)

    async def watched(self) -> list[Key]:
        """Keys that have not expired and are revoked, will be, or are restricted."""
        restricted = or_(keys.c.team_id != "", keys.c.user_id != "", keys.c.policy != text("'{}'::jsonb"))
        statement = select(keys).where(
            keys.c.expire_time > func.now(), or_(keys.c.revoke_time.is_not(None), restricted)
        )
        return [_key(row) for row in await self._database.fetch("watched_keys", statement)]


def _columns(policy: Policy) -> dict[str, object]:
    return {
        "allowed_models": list(policy.allowed_models),
        "allowed_deployments": list(policy.allowed_deployments),
        "residency": policy.residency,
        "cache": policy.cache,
        "cache_limits": asdict(policy.cache_limits),
        "guard_fail_open": policy.guard_fail_open,
        "tier": policy.tier,
        "routing_strategy": policy.routing_strategy,
        "tags": list(policy.tags),
        "compliance_packs": list(policy.compliance_packs),
        "violation_days": policy.violation_days,
        "keep_contents": policy.keep_contents,
        "guard": dict(policy.guard),
        "rate_limits": dict(policy.rate_limits),
    }


def _tenant(row: RowMapping) -> Tenant:
    policy = Policy(
        allowed_models=tuple(row["allowed_models"]),
        allowed_deployments=tuple(row["allowed_deployments"]),
        residency=row["residency"],
        cache=row["cache"],
        cache_limits=CacheLimits(**row["cache_limits"]),
        guard_fail_open=row["guard_fail_open"],
        tier=row["tier"],
        routing_strategy=row["routing_strategy"],
        tags=tuple(row["tags"]),
        compliance_packs=tuple(row["compliance_packs"]),
        violation_days=row["violation_days"],
        keep_contents=row["keep_contents"],
        guard=row["guard"],
        rate_limits=row["rate_limits"],
    )
    return Tenant(row["id"], row["display_name"], policy, row["create_time"], row["guard_rules_version"])


def _key(row: RowMapping) -> Key:
    return Key(
        id=row["id"],
        tenant_id=row["tenant_id"],
        display_name=row["display_name"],
        roles=tuple(row["roles"]),
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        revoke_time=row["revoke_time"],
        team_id=row["team_id"],
        tags=tuple(row["tags"]),
        policy=row["policy"],
        user_id=row["user_id"],
    )
