"""What every request waits for costs the same however much has been billed before."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, LiteralString

import pytest

from services.billing.database.engine import Database
from services.billing.database.reservations import ReservationStore
from services.billing.database.settlements import SettlementStore
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
