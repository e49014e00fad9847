"""Teams in Postgres, and what goes with them when they are deleted."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import RowMapping, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from meshkit.errors import ResourceExists, ResourceInUse
from services.billing.database.engine import Database
from services.billing.database.repeats import done_before
from services.billing.database.schema import teams, tenants
from services.billing.once import Once
from services.billing.teams.team import Team, team_name, team_unknown
from services.billing.tenants.tenant import tenant_deleted, tenant_unknown
from services.billing.versions import changed

_GOOD = "expire_time > now() AND (revoke_time IS NULL OR revoke_time > now())"
_IN_USE = text(f"""
SELECT (SELECT count(*) FROM keys WHERE tenant_id = :tenant_id AND team_id = :team_id AND {_GOOD}) AS keys,
    (SELECT count(*) FROM budgets WHERE tenant_id = :tenant_id AND team_id = :team_id) AS budgets
""")  # noqa: S608 - made of constants
_REVOKE = text(f"""
UPDATE keys SET revoke_time = now(), version = version + 1
WHERE tenant_id = :tenant_id AND team_id = :team_id AND {_GOOD}
""")  # noqa: S608 - made of constants
_DELETE_BUDGETS = text("DELETE FROM budgets WHERE tenant_id = :tenant_id AND team_id = :team_id")


class TeamStore:
    """Teams in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        tenant_id: str,
        team_id: str,
        display_name: str,
        allowed_models: Sequence[str] = (),
        once: Once | None = None,
    ) -> Team:
        """Make a team.

        Raises:
            ResourceNotFound: If there is no such tenant, or it is deleted.
            ResourceExists: If the tenant has such a team.
        """
        async with self._database.transaction("create_team") as connection:
            if await done_before(connection, once, team_id):
                return await _one(connection, tenant_id, team_id)
            await _lock(connection, tenant_id)
            if not await ensure_team(connection, tenant_id, team_id, display_name, allowed_models):
                raise ResourceExists(f"There is a team {team_id!r} already.", resource=team_name(tenant_id, team_id))
            return await _one(connection, tenant_id, team_id)

    async def get(self, tenant_id: str, team_id: str) -> Team | None:
        """One team."""
        statement = select(teams).where(teams.c.tenant_id == tenant_id, teams.c.id == team_id)
        rows = await self._database.fetch("get_team", statement)
        return _team(rows[0]) if rows else None

    async def page(self, tenant_id: str, sought: str, *, most: int, after: str) -> list[Team]:
        """At most `most` teams by id, after the id `after`; with a text in their id or name, if it is given.

        Raises:
            ResourceNotFound: If there is no such tenant.
        """
        if not await self._database.fetch("get_tenant", select(tenants.c.id).where(tenants.c.id == tenant_id)):
            raise tenant_unknown(tenant_id)
        statement = select(teams).where(teams.c.tenant_id == tenant_id, teams.c.id > after)
        if sought:
            # No LIKE: what is looked for has no wildcards.
            columns = (teams.c.id, teams.c.display_name)
            statement = statement.where(or_(*(func.strpos(func.lower(each), sought.lower()) > 0 for each in columns)))
        rows = await self._database.fetch("list_teams", statement.order_by(teams.c.id).limit(most))
        return [_team(row) for row in rows]

    async def update(
        self,
        tenant_id: str,
        team_id: str,
        *,
        display_name: str | None,
        allowed_models: Sequence[str] | None,
        version: int,
        once: Once | None,
    ) -> Team:
        """Change what is given, of one version if it is given.

        Raises:
            ResourceNotFound: If the tenant has no such team.
            VersionConflict: If it is another version by now.
        """
        given = {"display_name": display_name, "allowed_models": allowed_models}
        columns = {name: value for name, value in given.items() if value is not None}
        statement = update(teams).where(teams.c.tenant_id == tenant_id, teams.c.id == team_id)
        async with self._database.transaction("update_team") as connection:
            if await done_before(connection, once, team_id):
                return await _one(connection, tenant_id, team_id)
            await _lock(connection, tenant_id)
            team = await _of_version(connection, tenant_id, team_id, version)
            if not columns:
                return team
            await connection.execute(statement.values(**columns, version=teams.c.version + 1))
            return await _one(connection, tenant_id, team_id)

    async def delete(self, tenant_id: str, team_id: str, *, version: int, force: bool) -> None:
        """Delete a team, revoke its keys and delete its budgets.

        Raises:
            ResourceNotFound: If the tenant has no such team.
            VersionConflict: If it is another version by now.
            ResourceInUse: If it has keys that are good or budgets, and `force` is not given.
        """
        one = {"tenant_id": tenant_id, "team_id": team_id}
        async with self._database.transaction("delete_team") as connection:
            await _lock(connection, tenant_id)
            await _of_version(connection, tenant_id, team_id, version)
            use = (await connection.execute(_IN_USE, one)).mappings().one()
            if not force and any(use.values()):
                raise ResourceInUse(
                    f"The team {team_id!r} has {use['keys']} keys that are good and {use['budgets']} budgets:"
                    " end them first, or send force=true.",
                    resource=team_name(tenant_id, team_id),
                )
            await connection.execute(_REVOKE, one)
            await connection.execute(_DELETE_BUDGETS, one)
            await connection.execute(delete(teams).where(teams.c.tenant_id == tenant_id, teams.c.id == team_id))


async def ensure_team(
    connection: AsyncConnection,
    tenant_id: str,
    team_id: str,
    display_name: str = "",
    allowed_models: Sequence[str] = (),
) -> bool:
    """Make a team unless it is there; says whether it was made."""
    row = {
        "tenant_id": tenant_id,
        "id": team_id,
        "display_name": display_name or team_id,
        "allowed_models": list(allowed_models),
    }
    made = insert(teams).values(row).on_conflict_do_nothing().returning(teams.c.id)
    return (await connection.execute(made)).one_or_none() is not None


async def _lock(connection: AsyncConnection, tenant_id: str) -> None:
    """Let nobody else make keys or move money in a tenant until the transaction ends."""
    statement = select(tenants.c.delete_time).where(tenants.c.id == tenant_id).with_for_update(key_share=True)
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise tenant_unknown(tenant_id)
    if row.delete_time:
        raise tenant_deleted(tenant_id)


async def _of_version(connection: AsyncConnection, tenant_id: str, team_id: str, version: int) -> Team:
    team = await _one(connection, tenant_id, team_id)
    if version not in (0, team.version):
        raise changed(team_name(tenant_id, team_id))
    return team


async def _one(connection: AsyncConnection, tenant_id: str, team_id: str) -> Team:
    statement = select(teams).where(teams.c.tenant_id == tenant_id, teams.c.id == team_id)
    row = (await connection.execute(statement)).mappings().one_or_none()
    if row is None:
        raise team_unknown(tenant_id, team_id)
    return _team(row)


def _team(row: RowMapping) -> Team:
    return Team(
        row["tenant_id"],
        row["id"],
        row["display_name"],
        row["create_time"],
        row["version"],
        tuple(row["allowed_models"]),
    )
