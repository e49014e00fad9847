"""Tenants in Postgres. Triggers announce every change to whoever listens."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from sqlalchemy.ext.asyncio import AsyncConnection

from meshkit.errors import ResourceExists, ResourceInUse
from services.billing.budgets.budget import NewBudget
from services.billing.database.budgets import insert_budget
from services.billing.database.engine import Database
from services.billing.database.repeats import done_before
from services.billing.database.schema import guard_rules, tenants
from services.billing.once import Once
from services.billing.tenants.tenant import (
    CacheLimits,
    GuardRules,
    NewTenant,
    Policy,
    Tenant,
    TenantFilter,
    tenant_deleted,
    tenant_unknown,
)
from services.billing.versions import changed

DAYS_REMEMBERED = 31
"""Longer than any room keeps what it does not want to be asked for: cached answers live 30 days at most."""
_IN_USE = text("""
SELECT (SELECT count(*) FROM keys WHERE tenant_id = :tenant_id AND expire_time > now()
        AND (revoke_time IS NULL OR revoke_time > now())) AS keys,
    (SELECT count(*) FROM reservations WHERE tenant_id = :tenant_id) AS running
""")
_PUT_RULES = text("""
WITH changed AS (
    UPDATE tenants SET guard_rules_version = :version, version = version + 1
    WHERE id = :tenant_id AND delete_time IS NULL RETURNING id
)
INSERT INTO guard_rules (tenant_id, rules_json, version) SELECT id, :rules_json, :version FROM changed
ON CONFLICT (tenant_id) DO UPDATE SET rules_json = excluded.rules_json, version = excluded.version
RETURNING tenant_id
""")
_REVOKE = text("""
UPDATE keys SET revoke_time = now(), version = version + 1
WHERE tenant_id = :tenant_id AND expire_time > now() AND (revoke_time IS NULL OR revoke_time > now())
""")


class TenantStore:
    """Tenants in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, new: NewTenant, once: Once | None = None) -> Tenant:
        """Make a tenant and its first budget.

        Raises:
            ResourceExists: If there is, or ever was, a tenant of this id.
        """
        row = {
            "id": new.id,
            "display_name": new.display_name,
            "currency_code": new.currency_code,
            **_columns(new.policy),
        }
        statement = insert_or_skip(tenants).values(row).on_conflict_do_nothing().returning(tenants)
        async with self._database.transaction("create_tenant") as connection:
            if await done_before(connection, once, new.id):
                return await _one(connection, new.id)
            made = (await connection.execute(statement)).mappings().one_or_none()
            if made is None:
                raise ResourceExists(f"There is, or was, a tenant {new.id!r} already.", resource=f"tenants/{new.id}")
            await insert_budget(connection, NewBudget(new.id, new.budget_limit_micros))
        return _tenant(made)

    async def get(self, tenant_id: str) -> Tenant | None:
        """One tenant, deleted or not."""
        rows = await self._database.fetch("get_tenant", select(tenants).where(tenants.c.id == tenant_id))
        return _tenant(rows[0]) if rows else None

    async def page(self, which: TenantFilter, *, most: int, after: str) -> list[Tenant]:
        """At most `most` tenants by id, after the id `after`."""
        statement = select(tenants).where(tenants.c.id > after, *_chosen(which)).order_by(tenants.c.id).limit(most)
        return [_tenant(row) for row in await self._database.fetch("list_tenants", statement)]

    async def watched(self) -> list[Tenant]:
        """Every tenant, but for those deleted so long ago that nothing of theirs is left in any room."""
        long_ago = func.now() - timedelta(days=DAYS_REMEMBERED)
        statement = select(tenants).where(or_(tenants.c.delete_time.is_(None), tenants.c.delete_time > long_ago))
        return [_tenant(row) for row in await self._database.fetch("all_tenants", statement)]

    async def update(
        self,
        tenant_id: str,
        *,
        display_name: str | None,
        policy: Policy | None,
        version: int = 0,
        once: Once | None = None,
    ) -> Tenant:
        """Change what is given, of one version if it is given.

        Raises:
            ResourceNotFound: If there is no such tenant, or it is deleted.
            VersionConflict: If it is another version by now.
        """
        columns = dict(_columns(policy)) if policy else {}
        if display_name is not None:
            columns["display_name"] = display_name
        async with self._database.transaction("update_tenant") as connection:
            if await done_before(connection, once, tenant_id):
                return await _one(connection, tenant_id)
            tenant = await _locked(connection, tenant_id, version)
            if tenant.delete_time:
                raise tenant_deleted(tenant_id)
            return await _changed(connection, tenant_id, columns) if columns else tenant

    async def delete(self, tenant_id: str, *, version: int, force: bool, once: Once | None) -> Tenant:
        """Delete a tenant and revoke its keys.

        Raises:
            ResourceNotFound: If there is no such tenant, or it is deleted.
            VersionConflict: If it is another version by now.
            ResourceInUse: If it has keys that are good or answers under way, and `force` is not given.
        """
        async with self._database.transaction("delete_tenant") as connection:
            if await done_before(connection, once, tenant_id):
                return await _one(connection, tenant_id)
            if (await _locked(connection, tenant_id, version)).delete_time:
                raise tenant_deleted(tenant_id)
            if not force:
                await _check_unused(connection, tenant_id)
            await connection.execute(_REVOKE, {"tenant_id": tenant_id})
            return await _changed(connection, tenant_id, {"delete_time": func.now()})

    async def undelete(self, tenant_id: str, *, version: int, once: Once | None) -> Tenant:
        """Take a deletion back; keys stay revoked.

        Raises:
            ResourceNotFound: If there is no such tenant.
            ResourceExists: If it is not deleted.
            VersionConflict: If it is another version by now.
        """
        async with self._database.transaction("undelete_tenant") as connection:
            if await done_before(connection, once, tenant_id):
                return await _one(connection, tenant_id)
            if not (await _locked(connection, tenant_id, version)).delete_time:
                raise ResourceExists(f"The tenant {tenant_id!r} is not deleted.", resource=f"tenants/{tenant_id}")
            return await _changed(connection, tenant_id, {"delete_time": None})

    async def put_rules(self, tenant_id: str, rules: GuardRules) -> bool:
        """Put a tenant's guard rules in place of those it has; False when there is no such tenant."""
        row = {"tenant_id": tenant_id, "rules_json": rules.rules_json, "version": rules.version}
        return bool(await self._database.fetch("put_guard_rules", _PUT_RULES, row))

    async def rules(self, tenant_id: str) -> GuardRules:
        """A tenant's guard rules."""
        statement = select(guard_rules).where(guard_rules.c.tenant_id == tenant_id)
        rows = await self._database.fetch("get_guard_rules", statement)
        return GuardRules(rows[0]["rules_json"], rows[0]["version"]) if rows else GuardRules()


async def _locked(connection: AsyncConnection, tenant_id: str, version: int) -> Tenant:
    """A tenant, of one version if it is given, that nobody else changes until the transaction ends."""
    tenant = await _one(connection, tenant_id, locked=True)
    if version not in (0, tenant.version):
        raise changed(f"tenants/{tenant_id}")
    return tenant


async def _changed(connection: AsyncConnection, tenant_id: str, columns: dict[str, Any]) -> Tenant:
    statement = update(tenants).where(tenants.c.id == tenant_id).values(**columns, version=tenants.c.version + 1)
    return _tenant((await connection.execute(statement.returning(tenants))).mappings().one())


async def _check_unused(connection: AsyncConnection, tenant_id: str) -> None:
    use = (await connection.execute(_IN_USE, {"tenant_id": tenant_id})).mappings().one()
    if use["keys"] or use["running"]:
        raise ResourceInUse(
            f"The tenant {tenant_id!r} has {use['keys']} keys that are good and {use['running']} answers under way:"
            " end them first, or send force=true.",
            resource=f"tenants/{tenant_id}",
        )


async def _one(connection: AsyncConnection, tenant_id: str, *, locked: bool = False) -> Tenant:
    statement = select(tenants).where(tenants.c.id == tenant_id)
    if locked:
        statement = statement.with_for_update(key_share=True)
    row = (await connection.execute(statement)).mappings().one_or_none()
    if row is None:
        raise tenant_unknown(tenant_id)
    return _tenant(row)


def _chosen(which: TenantFilter) -> list[ColumnElement[bool]]:
    # No LIKE: what is looked for has no wildcards.
    sought = which.text.lower()
    found = [func.strpos(func.lower(column), sought) > 0 for column in (tenants.c.id, tenants.c.display_name)]
    conditions = [
        (tenants.c.id == which.only, which.only is not None),
        (tenants.c.tags.contains([which.tag]), which.tag),
        (or_(*found), sought),
        (tenants.c.delete_time.is_(None), not which.deleted),
    ]
    return [condition for condition, wanted in conditions if wanted]


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
        "max_cost_micros": policy.max_cost_micros,
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
        max_cost_micros=row["max_cost_micros"],
    )
    return Tenant(
        id=row["id"],
        display_name=row["display_name"],
        policy=policy,
        create_time=row["create_time"],
        guard_rules_version=row["guard_rules_version"],
        delete_time=row["delete_time"],
        version=row["version"],
    )
