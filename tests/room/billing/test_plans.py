"""What every request waits for, and what is swept every moment, costs the same however much there is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, LiteralString

import pytest
from sqlalchemy import Executable, text

from services.billing.database.alerts import AlertStore
from services.billing.database.contents import ContentStore
from services.billing.database.engine import Database, Rows
from services.billing.database.reservations import ReservationStore
from services.billing.database.settlements import SettlementStore
from services.billing.database.violations import ViolationStore
from services.billing.database.wire import Wire
from services.billing.lease import Lease
from services.billing.prices import Usage
from services.billing.reservations import Hold, Settlement

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOOKED_UP = {"keys", "billed_requests", "tenants", "reservations", "budgets"}
CONDITIONS = {"Index Cond", "TID Cond", "Recheck Cond"}


class ExplainingWire(Wire):
    """Keeps how the statements given to it are carried out."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, seconds=20)
        self.plans: list[Any] = []

    async def fetch(
        self, operation: str, *statements: LiteralString, afterwards: LiteralString = "", **parameters: Any
    ) -> list[Any]:
        connection = self._connection or await self._connect(time.monotonic() + 20)
        for statement in statements:
            rows = await connection.execute("EXPLAIN (FORMAT JSON) " + statement, parameters)
            self.plans += [row["QUERY PLAN"][0]["Plan"] for row in await rows.fetchall()]
        return await super().fetch(operation, *statements, afterwards=afterwards, **parameters)


class ExplainingDatabase(Database):
    """Keeps how many rows the statements given to it read."""

    read = 0.0

    async def fetch(self, operation: str, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Rows:
        [explained] = await super().fetch(operation, text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"), parameters)
        self.read += sum(rows_read(scan) for scan in scans(explained["QUERY PLAN"][0]["Plan"]))
        return await super().fetch(operation, statement, parameters)


def rows_read(scan: dict[str, Any]) -> float:
    removed = sum(scan.get(f"Rows Removed by {what}", 0) for what in ("Filter", "Index Recheck"))
    return float((scan["Actual Rows"] + removed) * scan["Actual Loops"])


def scans(plan: Any) -> Iterator[dict[str, Any]]:
    """Every place of a plan where a table is read."""
    if "Relation Name" in plan and "Scan" in plan["Node Type"]:
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part)


@pytest.fixture
async def wire(fresh_books: str) -> AsyncIterator[ExplainingWire]:
    database = Database(fresh_books, seconds=20, connections=1)
    database.open()
    wire = ExplainingWire(database)
    yield wire
    await wire.close()
    await database.close()


async def test_holding_and_settling_look_rows_up_though_the_tables_are_empty_when_they_are_planned(
    wire: ExplainingWire,
) -> None:
    lease = Lease("acme", "key-1", "request-1", "model", "RUB", NOW)
    await ReservationStore(wire, wire, wire, lease_seconds=60).hold(
        [Hold("acme", "key-1", "request-1", "model", "fingerprint", 1000, NOW)]
    )
    await SettlementStore(wire).settle([Settlement(lease, "deployment", "provider", Usage(), 500, 0, "stop")])
    read = [scan for plan in wire.plans for scan in scans(plan)]
    assert {scan["Relation Name"] for scan in read} == LOOKED_UP
    assert [scan for scan in read if not CONDITIONS & scan.keys()] == []


KEPT_ROWS = 1000
KEPT = {
    "violations": """
    INSERT INTO violations (tenant_id, request_id, key_id, model, type, severity, packs, outcome, rule, direction,
        context, create_time)
    SELECT 'acme', n, '', '', 'secret', 'high', '{}', '', '', '', '', now() FROM generate_series(1, :rows) AS n
    """,
    "audit_contents": """
    INSERT INTO audit_contents (tenant_id, request_id, key_id, sealed)
    SELECT 'acme', n, 1, '' FROM generate_series(1, :rows) AS n
    """,
    "alerts": """
    INSERT INTO alerts (kind, tenant_id, severity, title, text, fingerprint)
    SELECT 'cost', 'acme', 'high', '', '', n FROM generate_series(1, :rows) AS n
    """,
}


@pytest.mark.parametrize("table", [*KEPT])
async def test_sweeping_reads_none_of_the_rows_that_stay(table: str, fresh_books: str) -> None:
    # A table of a thousand rows is read through as cheaply as its index.
    database = ExplainingDatabase(f"{fresh_books}?options=-c%20enable_seqscan=off", seconds=20, connections=1)
    database.open()
    async with database.transaction("fill") as connection:
        await connection.execute(text(KEPT[table]), {"rows": KEPT_ROWS})
    stores: dict[str, Any] = {"violations": ViolationStore, "audit_contents": ContentStore, "alerts": AlertStore}
    await stores[table](database).sweep(30)
    assert database.read < KEPT_ROWS / 10
    left = await Database.fetch(database, "left", text(f"SELECT count(*) AS rows FROM {table}"))
    assert left[0]["rows"] == KEPT_ROWS
    await database.close()
