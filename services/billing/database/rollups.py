"""Sums of the ledger by hour, day and month: written by one replica at a time, read together with what is newer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.billing.database.books import DIMENSIONS, SUMS
from services.billing.database.engine import Database, translated
from services.billing.database.wire import Wire
from services.billing.reports.report import Line

_KEYS = ", ".join(DIMENSIONS)
_REQUESTS = "CASE WHEN correction THEN 0 ELSE 1 END"
"""A correction belongs to a request that has been counted."""
_SUMMED = ", ".join(f"{_REQUESTS} AS request_count" if name == "request_count" else name for name in SUMS)
_SUMS = ", ".join(SUMS)
_TOTALS = ", ".join(f"sum({name})::bigint AS {name}" for name in SUMS)
_OF_HOUR = ", ".join(
    f"sum({name})::bigint" if name in ("request_count", "cost_micros") else "0" for name in SUMS
)  # fmt: skip
_HORIZON = "CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)"
"""Every transaction before this one has ended: no row of theirs can appear any more."""


def _summed(table: str, unit: str, time: str) -> str:
    return f"""
    SELECT tenant_id, date_trunc('{unit}', {time}, 'UTC') AS start, tags, {_KEYS}, {_TOTALS}
    FROM {table} GROUP BY 1, 2, 3, {_KEYS}
    """  # noqa: S608 - made of constants


def _merged(table: str, *kept: str) -> str:
    """Sums of whole hours or days: charts need no more, and there are few of them."""
    dimensions = ", ".join(name if name in kept else "''" for name in DIMENSIONS)
    groups = ", ".join(("tenant_id", "start", *kept))
    return f"tenant_id, start, CAST('{{}}' AS text[]), {dimensions}, {_TOTALS} FROM {table} GROUP BY {groups}"


_MEMORY = "SELECT set_config('work_mem', '64MB', true)"
# The one row of progress may have moved between the statement's snapshot and its lock. The lock yields the row as it is
# by then; `moved` must not compare it with the row of the snapshot, or the same rows are summed again.
_ROLL_UP = f"""
WITH writer AS MATERIALIZED (
    SELECT before_id, {_HORIZON} AS horizon FROM rollup_progress
    WHERE before_id < {_HORIZON} FOR UPDATE SKIP LOCKED
),
fresh AS (
    SELECT tenant_id, create_time, tags, {_KEYS}, {_SUMMED}
    FROM writer JOIN ledger ON transaction_id >= before_id AND transaction_id < horizon
),
hours AS MATERIALIZED ({_summed("fresh", "hour", "create_time")}),
days AS MATERIALIZED ({_summed("hours", "day", "start")}),
summed AS (
    INSERT INTO usage_rollups AS known (span, tenant_id, start, tags, {_KEYS}, {_SUMS})
    SELECT 'hour', * FROM hours
    UNION ALL SELECT 'day', * FROM days
    UNION ALL SELECT 'month', * FROM ({_summed("days", "month", "start")}) AS months
    UNION ALL SELECT 'whole hour', {_merged("hours")}
    UNION ALL SELECT 'whole day', {_merged("days", "cache_status")}
    ON CONFLICT (tenant_id, span, start, {_KEYS}, tags)
        DO UPDATE SET {", ".join(f"{name} = known.{name} + excluded.{name}" for name in SUMS)}
    RETURNING 1
),
moved AS (
    UPDATE rollup_progress SET before_id = horizon FROM writer
)
SELECT count(*) AS rows FROM summed
"""  # noqa: S608 - made of constants

_ANOMALIES = """
INSERT INTO alerts (kind, tenant_id, severity, title, text, fingerprint)
SELECT 'cost', now.tenant_id, 'high',
    format('%%s spends %%s times what it did at this hour yesterday',
        now.tenant_id, round(now.cost_micros::numeric / before.cost_micros, 1)),
    format('From %%s UTC on %%s %%s, a day before %%s.', to_char(now.start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),
        round(now.cost_micros / 1e6, 2), currency_code, round(before.cost_micros / 1e6, 2)),
    mark.fingerprint
FROM usage_rollups AS now
JOIN usage_rollups AS before ON before.tenant_id = now.tenant_id AND before.span = 'whole hour'
    AND before.start = now.start - interval '1 day'
JOIN tenants ON tenants.id = now.tenant_id
CROSS JOIN LATERAL (
    SELECT format('cost/%%s/%%s', now.tenant_id, extract(epoch FROM now.start)::bigint) AS fingerprint
) AS mark
WHERE now.span = 'whole hour' AND now.start >= date_trunc('hour', now(), 'UTC') - interval '1 hour'
    AND before.cost_micros > 0 AND now.cost_micros > 1.5 * before.cost_micros
    AND NOT EXISTS (SELECT FROM alerts WHERE alerts.fingerprint = mark.fingerprint)
RETURNING 1
"""

_UNSUMMED = "transaction_id >= (SELECT before_id FROM rollup_progress) AND transaction_id < 9223372036854775807"
"""Rows that are in no sum yet. Of a range Postgres expects few rows and takes the index, of one bound alone a third."""

_LINES = f"""
WITH parts AS MATERIALIZED (
    SELECT span, start, tags, {_KEYS}, {_SUMS} FROM usage_rollups
    WHERE tenant_id = :tenant_id AND (
        span = 'month' AND start >= :first_month AND start < :last_month
        OR span = 'day' AND start >= :first_day AND start < least(CAST(:first_month AS timestamptz), :last_day)
        OR span = 'day' AND start >= greatest(CAST(:last_month AS timestamptz), :first_day) AND start < :last_day
        OR span = 'hour' AND start >= :start AND start < least(CAST(:first_day AS timestamptz), :end)
        OR span = 'hour' AND start >= greatest(CAST(:last_day AS timestamptz), :start) AND start < :end)
    UNION ALL
    SELECT 'hour', date_trunc('hour', create_time, 'UTC'), tags, {_KEYS}, {_SUMMED} FROM ledger
    WHERE tenant_id = :tenant_id AND create_time >= :start AND create_time < :end
        AND {_UNSUMMED}
),
-- Few rows however long the period: each is counted once for every level below.
combined AS MATERIALIZED (SELECT tags, {_KEYS}, {_TOTALS} FROM parts GROUP BY tags, {_KEYS}),
days AS (
    SELECT start, cache_status, {_SUMS} FROM usage_rollups
    WHERE tenant_id = :tenant_id AND span = 'whole day' AND start >= :first_day AND start < :last_day
    UNION ALL
    SELECT start, cache_status, {_SUMS} FROM parts WHERE span = 'hour'
),
hours AS (
    SELECT start, request_count, cost_micros FROM usage_rollups
    WHERE tenant_id = :tenant_id AND span = 'whole hour' AND start >= CAST(:start AS timestamptz) - interval '1 day'
        AND start < :end
    UNION ALL
    SELECT date_trunc('hour', create_time, 'UTC'), {_REQUESTS}, cost_micros FROM ledger
    WHERE tenant_id = :tenant_id AND create_time >= CAST(:start AS timestamptz) - interval '1 day'
        AND create_time < :end AND {_UNSUMMED}
)
SELECT level, name, cache_status IN ('exact', 'semantic') AS cached, cache_status = 'exact' AS exact, {_TOTALS}
FROM combined CROSS JOIN LATERAL (
    VALUES ('provider', provider), ('model', model), ('deployment', deployment), ('team', team_id), ('key', key_id)
    UNION ALL
    SELECT 'tag', unnest(tags)
) AS line(level, name)
GROUP BY level, name, cached, exact
UNION ALL
SELECT 'day', CAST(date_trunc('day', start, 'UTC') AT TIME ZONE 'UTC' AS text) AS name,
    cache_status IN ('exact', 'semantic') AS cached, cache_status = 'exact' AS exact, {_TOTALS}
FROM days GROUP BY name, cached, exact
UNION ALL
SELECT 'hour', CAST(start AT TIME ZONE 'UTC' AS text), false, false, {_OF_HOUR}
FROM hours GROUP BY start
ORDER BY level, name
"""  # noqa: S608 - made of constants

_AHEAD = text("""
SELECT before_id FROM rollup_progress
WHERE before_id > CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)
""")


class RollupsAhead(Exception):
    """The books come from another cluster, which had counted more transactions: what is new would be in no sum."""


async def check_cluster(engine: AsyncEngine) -> None:
    """Refuse books whose sums have come further than this cluster has counted, as those out of a dump have.

    Raises:
        RollupsAhead: If they have.
        DependencyUnavailable: If the database is away.
    """
    with translated():
        async with engine.connect() as connection:
            before_id = await connection.scalar(_AHEAD)
    if before_id is not None:
        raise RollupsAhead(
            f"The sums of the ledger have come to transaction {before_id}, which this Postgres has not reached: these "
            'books come from another one. docs/billing.md, "Books out of a dump", says how to go on.'
        )


class RollupStore:
    """Roll-ups in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lines(self, tenant_id: str, start: datetime, end: datetime) -> list[Line]:
        """Sums over whole hours from `start` up to `end`; the hours of the day before come with them."""
        first_day, last_day = _whole_days(start, end)
        first_month, last_month = _whole_months(first_day, last_day)
        parameters = {
            "tenant_id": tenant_id, "start": start, "end": end, "first_day": first_day, "last_day": last_day,
            "first_month": first_month, "last_month": last_month,
        }  # fmt: skip
        return [_line(row) for row in await self._database.fetch("report", text(_LINES), parameters)]


class Rollup:
    """The writer: whichever replica comes first sums up what is new, the others find nothing to do."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def run(self) -> int:
        """Add what was written since; says how many sums changed. An hour that costs too much is an alert, once.

        The row that says how far they have come is locked meanwhile: another replica passes over it.
        """
        rows = await self._wire.fetch("roll_up", _MEMORY, _ROLL_UP)
        changed = int(rows[0]["rows"])
        if changed:
            await self._wire.fetch("cost_anomalies", _ANOMALIES)
        return changed


def _whole_days(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The first midnight from `start` on and the last one up to `end`; `end` twice when there is none between."""
    midnight = start.replace(hour=0)
    first = midnight if midnight == start else midnight + timedelta(days=1)
    last = end.replace(hour=0)
    return (first, last) if first <= last else (end, end)


def _whole_months(first_day: datetime, last_day: datetime) -> tuple[datetime, datetime]:
    """The same with the first days of months, of the days from `first_day` up to `last_day`."""
    next_month = (first_day.replace(day=1) + timedelta(days=32)).replace(day=1)
    first = first_day if first_day.day == 1 else next_month
    last = last_day.replace(day=1)
    return (first, last) if first <= last else (last_day, last_day)


def _line(row: RowMapping) -> Line:
    values: dict[str, Any] = {name: row[name] for name in SUMS}
    return Line(row["level"], row["name"], cached=bool(row["cached"]), exact=bool(row["exact"]), **values)
