"""Virtual keys in Postgres. Triggers announce every change to whoever listens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, func, insert, or_, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from meshkit.errors import FieldInvalid
from services.billing.database.books import budgets
from services.billing.database.engine import Database
from services.billing.database.repeats import done_before
from services.billing.database.schema import keys, teams, tenants
from services.billing.database.teams import ensure_team
from services.billing.once import Once
from services.billing.pagination import Position
from services.billing.tenants.tenant import Key, KeyFilter, key_unknown, tenant_deleted, tenant_unknown
from services.billing.versions import changed

_UNREVOKED = or_(keys.c.revoke_time.is_(None), keys.c.revoke_time > func.now())
_RESTRICTED = or_(keys.c.team_id != "", keys.c.user_id != "", keys.c.policy != text("'{}'::jsonb"))

_OF_TEAM = select(keys, teams.c.allowed_models.label("team_models")).outerjoin(
    teams, and_(teams.c.tenant_id == keys.c.tenant_id, teams.c.id == keys.c.team_id)
)


class KeyStore:
    """Virtual keys in Postgres: their ids, never their tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key: Key, once: Once | None = None) -> Key:
        """Write a key, or give the one that the same request made before.

        Raises:
            ResourceNotFound: If there is no such tenant, or it is deleted.
        """
        async with self._database.transaction("create_key") as connection:
            earlier = await done_before(connection, once, key.id)
            if earlier:
                return await _one(connection, key.tenant_id, earlier)
            await _check_tenant(connection, key.tenant_id)
            return await _insert(connection, key)

    async def replace(
        self, old_id: str, key: Key, after: timedelta, version: int = 0, once: Once | None = None
    ) -> tuple[Key, Key]:
        """Write a key's successor, which goes on with its budgets, and set the time that the key ends; returns both.

        Raises:
            ResourceNotFound: If the tenant has no such key, or is deleted.
            VersionConflict: If the key is another version by now.
            FieldInvalid: If the key is revoked or has a successor.
        """
        async with self._database.transaction("replace_key") as connection:
            earlier = await done_before(connection, once, key.id)
            if earlier:
                return await _one(connection, key.tenant_id, earlier), await _one(connection, key.tenant_id, old_id)
            await _check_tenant(connection, key.tenant_id)
            old = await _one(connection, key.tenant_id, old_id, locked=True)
            if old.revoke_time:
                raise FieldInvalid("key_id", "is revoked, or rotated already: rotate its successor")
            ended = await _change(connection, key.tenant_id, old_id, version, {"revoke_time": func.now() + after})
            successor = replace(key, budget_key_ids=await _with_budgets(connection, old))
            return await _insert(connection, successor), ended

    async def get(self, key_id: str) -> Key | None:
        """One key, whoever's it is."""
        rows = await self._database.fetch("get_key", _OF_TEAM.where(keys.c.id == key_id))
        return _key(rows[0]) if rows else None

    async def page(self, tenant_id: str, which: KeyFilter, *, most: int, before: Position | None) -> list[Key]:
        """At most `most` keys of a tenant, newest first, older than `before`."""
        statement = select(keys).where(keys.c.tenant_id == tenant_id, *_chosen(which))
        if before:
            statement = statement.where(tuple_(keys.c.create_time, keys.c.id) < (before.time, before.id))
        statement = statement.order_by(keys.c.create_time.desc(), keys.c.id.desc()).limit(most)
        return [_key(row) for row in await self._database.fetch("list_keys", statement)]

    async def change(
        self,
        tenant_id: str,
        key_id: str,
        *,
        display_name: str | None,
        policy: Mapping[str, Any] | None,
        version: int = 0,
        once: Once | None = None,
    ) -> Key:
        """Change what is given, of one version if it is given.

        Raises:
            ResourceNotFound: If the tenant has no such key.
            VersionConflict: If it is another version by now.
        """
        columns: dict[str, Any] = {} if policy is None else {"policy": dict(policy)}
        if display_name is not None:
            columns["display_name"] = display_name
        async with self._database.transaction("change_key") as connection:
            if await done_before(connection, once, key_id):
                return await _one(connection, tenant_id, key_id)
            return await _change(connection, tenant_id, key_id, version, columns)

    async def revoke(self, tenant_id: str, key_id: str, version: int = 0) -> Key:
        """Revoke a key for good, of one version if it is given; one that is revoked stays as it is.

        Raises:
            ResourceNotFound: If the tenant has no such key.
            VersionConflict: If it is another version by now.
        """
        async with self._database.transaction("revoke_key") as connection:
            found = await _one(connection, tenant_id, key_id, locked=True)
            if found.revoked(datetime.now(UTC)):
                return found
            return await _change(connection, tenant_id, key_id, version, {"revoke_time": func.now()})

    async def revoke_named(self, tenant_id: str, display_name: str) -> None:
        """Revoke every key of a tenant that goes by a name."""
        statement = (
            update(keys)
            .where(keys.c.tenant_id == tenant_id, keys.c.display_name == display_name, keys.c.revoke_time.is_(None))
            .values(revoke_time=func.now(), version=keys.c.version + 1)
        )
        await self._database.fetch("revoke_keys", statement)

    async def watched(self, tenant_id: str | None = None) -> list[Key]:
        """Keys, of one tenant or of all, that have not expired and are revoked, will be, or are restricted."""
        statement = _OF_TEAM.where(keys.c.expire_time > func.now(), or_(keys.c.revoke_time.is_not(None), _RESTRICTED))
        if tenant_id is not None:
            statement = statement.where(keys.c.tenant_id == tenant_id)
        return [_key(row) for row in await self._database.fetch("watched_keys", statement)]


async def _check_tenant(connection: AsyncConnection, tenant_id: str) -> None:
    """Refuse a tenant that cannot have new keys, and let nobody delete it until the transaction ends."""
    statement = select(tenants.c.delete_time).where(tenants.c.id == tenant_id).with_for_update(read=True)
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise tenant_unknown(tenant_id)
    if row.delete_time:
        raise tenant_deleted(tenant_id)


async def _insert(connection: AsyncConnection, key: Key) -> Key:
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
        "budget_key_ids": list(key.budget_key_ids),
    }
    if key.team_id:
        await ensure_team(connection, key.tenant_id, key.team_id)
    await connection.execute(insert(keys).values(row))
    return key


async def _change(
    connection: AsyncConnection, tenant_id: str, key_id: str, version: int, columns: Mapping[str, Any]
) -> Key:
    found = await _one(connection, tenant_id, key_id, locked=True)
    if version not in (0, found.version):
        raise changed(f"tenants/{tenant_id}/keys/{key_id}")
    if not columns:
        return found
    statement = update(keys).where(keys.c.id == key_id).values(**columns, version=keys.c.version + 1).returning(keys)
    return _key((await connection.execute(statement)).mappings().one())


async def _one(connection: AsyncConnection, tenant_id: str, key_id: str, *, locked: bool = False) -> Key:
    statement = select(keys).where(keys.c.tenant_id == tenant_id, keys.c.id == key_id)
    if locked:
        statement = statement.with_for_update()
    row = (await connection.execute(statement)).mappings().one_or_none()
    if row is None:
        raise key_unknown(tenant_id, key_id)
    return _key(row)


async def _with_budgets(connection: AsyncConnection, key: Key) -> tuple[str, ...]:
    """A key and those before it, as far as they have budgets: every request looks each of them up."""
    own = budgets.c.key_id.in_([key.id, *key.budget_key_ids])
    statement = select(budgets.c.key_id).distinct().where(budgets.c.tenant_id == key.tenant_id, own)
    return tuple((await connection.execute(statement.order_by(budgets.c.key_id))).scalars())


def _chosen(which: KeyFilter) -> list[ColumnElement[bool]]:
    conditions = [
        (keys.c.team_id == which.team_id, which.team_id),
        (keys.c.user_id == which.user_id, which.user_id),
        (keys.c.tags.contains([which.tag]), which.tag),
        ((keys.c.expire_time > func.now()) & _UNREVOKED, which.live),
    ]
    return [condition for condition, wanted in conditions if wanted]


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
        version=row["version"],
        team_models=tuple(row.get("team_models") or ()),
        budget_key_ids=tuple(row["budget_key_ids"]),
    )
