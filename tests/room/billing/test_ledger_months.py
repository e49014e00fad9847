"""The ledger's partitions: ahead of their months, dropped when they are old and summed up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.rows import scalar_row
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import create_async_engine

from services.billing.database.engine import Database
from services.billing.database.ledger_months import DROPPING, MONTHS_AHEAD, LedgerMonths
from services.billing.database.rollups import Rollup
from services.billing.database.wire import Wire
from services.billing.migrations.upgrade import upgrade
from tests.room.billing.conftest import Configure, awaited
from tests.support.waiting import until

ROW = """
INSERT INTO ledger (tenant_id, request_id, key_id, model, deployment, provider, cache_status, input_tokens,
    cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_micros, saved_micros,
    currency_code, finish_reason, create_time)
VALUES ('acme', %(id)s, 'k', 'm', 'd', 'p', 'miss', 0, 0, 0, 0, 0, false, 7, 0, 'RUB', 'stop', %(time)s)
"""
PARTS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ledger'::regclass ORDER BY 1"
AHEAD = """
SELECT 'ledger_' || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n), 'YYYY_MM')
FROM generate_series(0, %s) AS n
"""
KEPT_MONTHS = 13


@dataclass
class Ledger:
    months: LedgerMonths
    rollup: Rollup
    sql: psycopg.Connection[str]

    def add(self, request_id: str, time: str) -> str:
        """Add a row; says where it went."""
        self.sql.execute(ROW, {"id": request_id, "time": time})
        where = "SELECT tableoid::regclass::text FROM ledger WHERE request_id = %s"
        return self.sql.execute(where, [request_id]).fetchall()[0]

    def parts(self) -> list[str]:
        """Its partitions."""
        return self.sql.execute(PARTS).fetchall()


@pytest.fixture
async def ledger(fresh_books: str) -> AsyncIterator[Ledger]:
    database = Database(fresh_books, seconds=20, connections=2)
    database.open()
    wire = Wire(database, seconds=20)
    with psycopg.connect(database.address, autocommit=True, row_factory=scalar_row) as sql:
        yield Ledger(LedgerMonths(database), Rollup(wire), sql)
    await wire.close()
    await database.close()


async def test_the_months_ahead_have_partitions(ledger: Ledger) -> None:
    await ledger.months.prepare()
    names = ledger.sql.execute(AHEAD, [MONTHS_AHEAD]).fetchall()
    assert ledger.parts() == [*names, "ledger_rest"]
    assert ledger.add("now", "now") == names[0]


async def test_a_row_of_any_time_has_a_place_and_its_month_is_not_made_around_it(ledger: Ledger) -> None:
    assert ledger.add("early", "2024-05-31 23:59:59.999999Z") == "ledger_rest"
    made = ledger.sql.execute(
        "SELECT add_ledger_month(month) FROM unnest('{2024-05-01Z,2024-06-01Z}'::timestamptz[]) AS month"
    )
    assert made.fetchall() == [False, True]
    assert ledger.add("next", "2024-06-01Z") == "ledger_2024_06"


async def test_an_old_month_is_dropped_once_it_is_summed_up(ledger: Ledger) -> None:
    ledger.sql.execute("SELECT add_ledger_month('2024-06-15Z')")
    ledger.add("old", "2024-06-30 12:00Z")
    ledger.add("new", "now")
    ledger.sql.execute("INSERT INTO billed_requests SELECT request_id, tenant_id, cost_micros, create_time FROM ledger")
    assert await ledger.months.drop(kept=KEPT_MONTHS) == []
    await ledger.rollup.run()
    assert await ledger.months.drop(kept=KEPT_MONTHS) == ["ledger_2024_06"]
    for table in ("ledger", "billed_requests"):
        assert ledger.sql.execute(f"SELECT request_id FROM {table}".encode()).fetchall() == ["new"]
    total = "SELECT sum(cost_micros)::int FROM usage_rollups WHERE span = 'month'"
    assert ledger.sql.execute(total).fetchall() == [14]
    assert await ledger.months.drop(kept=KEPT_MONTHS) == []


async def test_a_month_that_another_replica_drops_at_the_same_moment_is_passed_over(
    ledger: Ledger, fresh_books: str
) -> None:
    ledger.sql.execute("SELECT add_ledger_month('2024-06-15Z')")
    with psycopg.connect(fresh_books.replace("+psycopg", "")) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [DROPPING])
        other.execute("DROP TABLE ledger_2024_06")
        dropping = asyncio.create_task(ledger.months.drop(kept=KEPT_MONTHS))
        await until(lambda: asyncio.to_thread(awaited, other))
    assert await dropping == []


@pytest.mark.parametrize("change", ["DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET cost_micros = 0"])
async def test_a_partition_refuses_to_be_rewritten_as_the_whole_does(ledger: Ledger, change: str) -> None:
    where = ledger.add("now", "now")
    for part in (where, "ledger_rest"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only ever added"):
            ledger.sql.execute(change.format(part).encode())


def test_a_ledger_that_does_not_outlast_its_budgets_is_refused(configure: Configure, books: str) -> None:
    with pytest.raises(ValidationError, match="at least 13"):
        configure(books, ledger_months=12)


async def test_rows_from_before_the_months_keep_what_they_say(database_url: str) -> None:
    engine = create_async_engine(database_url)
    await upgrade(engine, "0015_rate_limits")
    address = database_url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as sql:
        sql.execute(
            "INSERT INTO tenants (id, display_name, allowed_models, allowed_deployments, residency, cache, "
            "guard_fail_open, currency_code) VALUES ('acme', '', '{}', '{}', '', '', false, 'RUB')"
        )
        for number, time in enumerate(("2024-01-31 23:00Z", "2026-02-01Z")):
            row = ROW.replace("create_time)", "create_time, team_id, tags, overrun_micros)").replace(
                "%(time)s)", "%(time)s, 'red', '{a,b}', 3)"
            )
            sql.execute(row.encode(), {"id": f"r{number}", "time": time})
        columns = "id, request_id, cost_micros, create_time, team_id, tags, overrun_micros, transaction_id"
        before = sql.execute(f"SELECT {columns} FROM ledger ORDER BY id").fetchall()
        await upgrade(engine)
        assert sql.execute(f"SELECT {columns} FROM ledger ORDER BY id").fetchall() == before
        assert sql.execute("SELECT request_id FROM billed_requests ORDER BY 1").fetchall() == [("r0",), ("r1",)]
        places = sql.execute("SELECT tableoid::regclass::text FROM ledger ORDER BY id").fetchall()
        assert places == [("ledger_2024_01",), ("ledger_2026_02",)]
        sql.execute(ROW, {"id": "r2", "time": "now"})
        assert sql.execute("SELECT max(id) FROM ledger").fetchall() == [(before[-1][0] + 1,)]
    await engine.dispose()
