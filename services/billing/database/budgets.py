"""Budgets as people see them; requests change them in `reservations` and `settlements`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from sqlalchemy.ext.asyncio import AsyncConnection

from meshkit.errors import ResourceExists
from services.billing.budgets.budget import Budget, BudgetChange, BudgetEvent, NewBudget, budget_unknown
from services.billing.database.books import budget_events, budgets, budgets_now
from services.billing.database.engine import Database
from services.billing.database.grants import LOCK, MATCHES, asked_by_keys
from services.billing.database.repeats import done_before
from services.billing.database.schema import keys, tenants
from services.billing.database.wire import Wire
from services.billing.once import Once
from services.billing.pagination import Position
from services.billing.tenants.tenant import tenant_unknown
from services.billing.versions import changed

MOST_CURRENCIES_REMEMBERED = 100_000

_BUDGETS = select(budgets_now, tenants.c.currency_code).join(tenants, tenants.c.id == budgets_now.c.tenant_id)

_ROLLING = """
SELECT DISTINCT tenant_id FROM budgets
WHERE cycle = 'rolling' AND period_start < now() - make_interval(secs => rolling_seconds)
"""
_ADVANCE = f"""
WITH moved AS (
    SELECT asked.*, now() - make_interval(secs => rolling_seconds) AS start FROM budgets AS asked
    WHERE tenant_id = ANY(%(tenant_ids)s) AND cycle = 'rolling'
)
UPDATE budgets SET period_start = moved.start, spent_micros = budgets.spent_micros - (
    SELECT coalesce(sum(cost_micros), 0) FROM {asked_by_keys("ledger")} JOIN moved AS budget ON {MATCHES}
    WHERE budget.id = moved.id AND asked.tenant_id = moved.tenant_id
        AND asked.create_time >= moved.period_start AND asked.create_time < moved.start
)
FROM moved
WHERE (budgets.tenant_id, budgets.id) = (moved.tenant_id, moved.id) AND moved.period_start < moved.start
RETURNING budgets.id
"""  # noqa: S608 - made of constants
_TAKE_OVER = text(f"""
UPDATE budgets SET
    spent_micros = (
        SELECT coalesce(sum(cost_micros), 0) FROM {asked_by_keys("ledger")}
        JOIN budgets AS budget ON {MATCHES}
        WHERE budget.tenant_id = :tenant_id AND budget.id = :id AND create_time >= period_start
    ),
    reserved_micros = (
        SELECT coalesce(sum(amount_micros), 0) FROM {asked_by_keys("reservations")}
        JOIN budgets AS budget ON {MATCHES}
        WHERE budget.tenant_id = :tenant_id AND budget.id = :id
    )
WHERE tenant_id = :tenant_id AND id = :id
""")  # noqa: S608 - made of constants
_ALERT = """
WITH reached AS MATERIALIZED (
    SELECT now.*, coalesce((
        SELECT max(percent) FROM unnest(alert_percents) AS percent
        WHERE spent_micros > 0 AND spent_micros::numeric * 100 >= limit_micros::numeric * percent
    ), 0) AS percent
    FROM budgets_now AS now
),
crossed AS (
    UPDATE budgets SET alerted_percent = reached.percent FROM reached
    WHERE (budgets.tenant_id, budgets.id) = (reached.tenant_id, reached.id)
        AND reached.percent <> budgets.alerted_percent AND budgets.alerted_percent = reached.alerted_percent
    RETURNING reached.*
),
event AS (
    INSERT INTO budget_events (tenant_id, budget_id, percent, spent_micros, limit_micros)
    SELECT tenant_id, id, passed, spent_micros, limit_micros
    FROM crossed CROSS JOIN LATERAL unnest(alert_percents) AS passed
    WHERE passed > alerted_percent AND passed <= percent
    ORDER BY passed
    RETURNING *
)
INSERT INTO alerts (kind, tenant_id, severity, title, text, fingerprint)
SELECT 'budget', tenant_id, CASE WHEN percent < 80 THEN 'medium' WHEN percent < 100 THEN 'high' ELSE 'critical' END,
    format('Budget %%s of %%s: %%s %%%% spent', budget_id, tenant_id, percent),
    format('%%s of %%s %%s are spent.', round(spent_micros / 1e6, 2), round(limit_micros / 1e6, 2), currency_code),
    format('budget/%%s/%%s/%%s', tenant_id, budget_id, percent)
FROM event JOIN tenants ON tenants.id = tenant_id
RETURNING 1
"""


class BudgetStore:
    """Budgets in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._currencies: dict[str, str] = {}

    async def create(self, new: NewBudget, once: Once | None = None) -> Budget:
        """Make a budget that has borne what its scope spent in this period and holds now.

        Raises:
            ResourceExists: If its id is taken.
        """
        async with self._database.transaction("create_budget") as connection:
            if not await done_before(connection, once, new.id):
                await lock_tenant(connection, new.tenant_id)
                if not await insert_budget(connection, new):
                    resource = f"tenants/{new.tenant_id}/budgets/{new.id}"
                    raise ResourceExists(f"There is a budget {new.id!r} already.", resource=resource)
                await connection.execute(_TAKE_OVER, {"tenant_id": new.tenant_id, "id": new.id})
        return await self.one(new.tenant_id, new.id)

    async def one(self, tenant_id: str, budget_id: str) -> Budget:
        """One budget, as of now.

        Raises:
            ResourceNotFound: If there is no such budget.
        """
        budget = await self.get(tenant_id, budget_id)
        if budget is None:
            raise budget_unknown(tenant_id, budget_id)
        return budget

    async def get(self, tenant_id: str, budget_id: str) -> Budget | None:
        """One budget, as of now."""
        wanted = (budgets_now.c.tenant_id == tenant_id) & (budgets_now.c.id == budget_id)
        rows = await self._database.fetch("get_budget", _BUDGETS.where(wanted))
        return _budget(rows[0]) if rows else None

    async def page(self, tenant_id: str, *, most: int, after: str, team_id: str, key_id: str) -> list[Budget]:
        """At most `most` budgets by id, after the id `after`; of one team or key, when it is given."""
        statement = _BUDGETS.where(budgets_now.c.tenant_id == tenant_id, budgets_now.c.id > after)
        if team_id:
            statement = statement.where(budgets_now.c.team_id == team_id)
        if key_id:
            statement = statement.where(_counts_key(key_id))
        rows = await self._database.fetch("list_budgets", statement.order_by(budgets_now.c.id).limit(most))
        return [_budget(row) for row in rows]

    async def change(
        self, tenant_id: str, budget_id: str, change: BudgetChange, *, version: int = 0, once: Once | None = None
    ) -> Budget:
        """Change settings, of one version if it is given. What is spent and held stays, even beyond a lower limit.

        Raises:
            ResourceNotFound: If there is no such budget.
            VersionConflict: If it is no longer the version that is given.
        """
        values = {name: value for name, value in asdict(change).items() if value is not None}
        statement = update(budgets).where(*_version(tenant_id, budget_id, version)).returning(budgets.c.id)
        async with self._database.transaction("change_budget") as connection:
            if not await done_before(connection, once, budget_id):
                written = await connection.execute(statement.values(**values, version=budgets.c.version + 1))
                if written.one_or_none() is None:
                    resource = f"tenants/{tenant_id}/budgets/{budget_id}"
                    raise changed(resource) if version else budget_unknown(tenant_id, budget_id)
        return await self.one(tenant_id, budget_id)

    async def delete(self, tenant_id: str, budget_id: str, *, version: int = 0) -> bool:
        """Delete a budget, of one version if it is given; False when there is none."""
        statement = delete(budgets).where(*_version(tenant_id, budget_id, version)).returning(budgets.c.id)
        async with self._database.transaction("delete_budget") as connection:
            await lock_tenant(connection, tenant_id)
            return (await connection.execute(statement)).one_or_none() is not None

    async def events(self, tenant_id: str, budget_id: str, *, most: int, before: Position | None) -> list[BudgetEvent]:
        """At most `most` events of a tenant's budget, or of all if it is empty, newest first, older than `before`."""
        statement = select(budget_events).where(budget_events.c.tenant_id == tenant_id)
        if budget_id:
            statement = statement.where(budget_events.c.budget_id == budget_id)
        place = tuple_(budget_events.c.create_time, budget_events.c.id)
        if before:
            statement = statement.where(place < (before.time, before.id))
        statement = statement.order_by(budget_events.c.create_time.desc(), budget_events.c.id.desc()).limit(most)
        return [_event(row) for row in await self._database.fetch("list_budget_events", statement)]

    async def currency_of(self, tenant_id: str) -> str:
        """Currency of a tenant's money. It never changes, so it is asked for once.

        Raises:
            ResourceNotFound: If there is no such tenant.
        """
        known = self._currencies.get(tenant_id)
        if known:
            return known
        statement = select(tenants.c.currency_code).where(tenants.c.id == tenant_id)
        rows = await self._database.fetch("currency_of", statement)
        if not rows:
            raise tenant_unknown(tenant_id)
        if len(self._currencies) >= MOST_CURRENCIES_REMEMBERED:
            self._currencies.clear()
        return self._currencies.setdefault(tenant_id, str(rows[0]["currency_code"]))


class BudgetUpkeep:
    """What moves without a request: the start of rolling periods, and thresholds reached."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def run(self) -> int:
        """Forget what left a rolling period, then record each threshold reached since; says how many.

        Until it runs a rolling budget still counts what has left its period: it errs on the safe side.
        """
        rows = await self._wire.fetch("rolling_tenants", _ROLLING)
        if rows:
            await self._wire.fetch("advance_budgets", LOCK, _ADVANCE, tenant_ids=[row["tenant_id"] for row in rows])
        return len(await self._wire.fetch("alert_budgets", _ALERT))


async def insert_budget(connection: AsyncConnection, new: NewBudget) -> bool:
    """Add a budget that nothing has been spent from; False when its id is taken."""
    row: dict[str, Any] = {**asdict(new), "alert_percents": list(new.alert_percents), "period_start": _start(new)}
    row |= {"spent_micros": 0, "reserved_micros": 0, "alerted_percent": 0, "version": 1}
    statement = insert_or_skip(budgets).values(row).on_conflict_do_nothing().returning(budgets.c.id)
    return (await connection.execute(statement)).one_or_none() is not None


def _start(new: NewBudget) -> ColumnElement[Any]:
    if new.cycle == "rolling":
        return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, new.rolling_seconds)
    if new.cycle == "prepaid":
        return func.now()
    return func.date_trunc(new.cycle, func.now(), new.time_zone)


async def lock_tenant(connection: AsyncConnection, tenant_id: str) -> None:
    """Let nobody else move the tenant's money until the transaction ends."""
    await connection.execute(select(tenants.c.id).where(tenants.c.id == tenant_id).with_for_update(key_share=True))


def _counts_key(key_id: str) -> ColumnElement[bool]:
    before = select(func.unnest(keys.c.budget_key_ids)).where(keys.c.id == key_id)
    return or_(budgets_now.c.key_id == key_id, budgets_now.c.key_id.in_(before))


def _version(tenant_id: str, budget_id: str, version: int) -> list[ColumnElement[bool]]:
    wanted = [budgets.c.tenant_id == tenant_id, budgets.c.id == budget_id]
    return [*wanted, budgets.c.version == version] if version else wanted


def _budget(row: RowMapping) -> Budget:
    return Budget(
        tenant_id=row["tenant_id"],
        id=row["id"],
        team_id=row["team_id"],
        key_id=row["key_id"],
        cycle=row["cycle"],
        rolling_seconds=row["rolling_seconds"],
        time_zone=row["time_zone"],
        soft=row["soft"],
        alert_percents=tuple(row["alert_percents"]),
        limit_micros=row["limit_micros"],
        spent_micros=row["spent_micros"],
        reserved_micros=row["reserved_micros"],
        currency_code=row["currency_code"],
        period_start=row["period_start"],
        version=row["version"],
    )


def _event(row: RowMapping) -> BudgetEvent:
    return BudgetEvent(
        id=row["id"],
        budget_id=row["budget_id"],
        percent=row["percent"],
        spent_micros=row["spent_micros"],
        limit_micros=row["limit_micros"],
        create_time=row["create_time"],
    )
