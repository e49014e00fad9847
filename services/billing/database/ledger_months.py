"""The ledger's partitions: made ahead of their months, dropped when nobody needs them any more."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.database.engine import Database
from services.billing.database.wire import Wire

MONTHS_AHEAD = 3
FORGETTING_SECONDS = 600.0
"""Longest that forgetting the requests of a dropped month may take: there may be millions."""
DROPPING = 0x6C6C6D64
"""Advisory lock: replicas drop months one after the other."""

# Whoever waits for the lock is waited for by all others: better to try again later.
_PATIENCE = text("SET LOCAL lock_timeout = '1s'")
_ADD = text("""
SELECT add_ledger_month(
    (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead)) AT TIME ZONE 'UTC')
FROM generate_series(0, :months_ahead) AS ahead
""")
_FORGET = """
WITH gone AS (
    DELETE FROM billed_requests WHERE create_time <
        (date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => %(kept)s)) AT TIME ZONE 'UTC'
    RETURNING 1
)
SELECT count(*) AS gone FROM gone
"""
_OLD = text("""
SELECT inhrelid::regclass::text AS name FROM pg_inherits
WHERE inhparent = 'ledger'::regclass AND inhrelid::regclass::text < 'ledger_'
    || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => :kept), 'YYYY_MM')
    AND inhrelid::regclass::text ~ '^ledger_\\d{4}_\\d{2}$'
ORDER BY name
""")
_ALONE = text("SELECT pg_advisory_xact_lock(:lock)")
_THERE = text("SELECT to_regclass(:name) IS NOT NULL")
_WAITING = "SELECT 1 FROM {} WHERE transaction_id >= (SELECT before_id FROM rollup_progress) LIMIT 1"


class LedgerMonths:
    """Partitions of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prepare(self) -> None:
        """Make the partitions of this month and the next ones, those that are missing.

        Raises:
            DependencyUnavailable: If the database is away or busy: what is missing is made next time.
        """
        async with self._database.transaction("add_ledger_months") as connection:
            await connection.execute(_PATIENCE)
            await connection.execute(_ADD, {"months_ahead": MONTHS_AHEAD})

    async def drop(self, *, kept: int) -> list[str]:
        """Drop months that ended more than `kept` months ago, this one not counted; returns their names.

        Their sums stay in the roll-ups: a month that is not summed up yet stays too.
        """
        dropped = []
        for name in [row["name"] for row in await self._database.fetch("old_ledger_months", _OLD, {"kept": kept})]:
            async with self._database.transaction("drop_ledger_month") as connection:
                # Nobody waits for who waits for this one.
                await connection.execute(_ALONE, {"lock": DROPPING})
                await connection.execute(_PATIENCE)
                if await _can_go(connection, name):
                    await connection.execute(text(f"DROP TABLE {name}"))
                    dropped.append(name)
        if dropped:
            await self._forget(kept)
        return dropped

    async def _forget(self, kept: int) -> None:
        wire = Wire(self._database, seconds=FORGETTING_SECONDS)
        try:
            await wire.fetch("forget_billed", _FORGET, kept=kept)
        finally:
            await wire.close()


async def _can_go(connection: AsyncConnection, name: str) -> bool:
    """Whether a month is still there, and summed up."""
    there = (await connection.execute(_THERE, {"name": name})).scalar_one()
    return bool(there) and (await connection.execute(text(_WAITING.format(name)))).first() is None
