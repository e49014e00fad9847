"""Violations in Postgres, until they are old enough to go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import orjson
from sqlalchemy import RowMapping, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.audit.event import SEVERITIES
from services.billing.compliance.violation import Violation
from services.billing.database.ages import old_rows
from services.billing.database.engine import Database
from services.billing.database.schema import violations
from services.billing.pagination import Position

SWEPT_AT_ONCE = 5000

_ADD = text("""
INSERT INTO violations (tenant_id, request_id, key_id, model, type, severity, packs, outcome, rule, direction, context,
    create_time)
SELECT tenant_id, request_id, key_id, model, type, severity, packs, outcome, rule, direction, context, create_time
FROM jsonb_to_recordset(CAST(:violations AS jsonb)) AS violation(
    tenant_id text, request_id text, key_id text, model text, type text, severity text, packs text[], outcome text,
    rule text, direction text, context text, create_time timestamptz)
""")
_SWEEP = text(f"""
DELETE FROM violations WHERE ctid = ANY(ARRAY({old_rows("violations")}))
RETURNING id
""")  # noqa: S608 - made of constants


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of a tenant's violations."""

    tenant_id: str
    type: str = ""
    least_severity: str = "low"
    start: datetime | None = None
    end: datetime | None = None


async def add_violations(connection: AsyncConnection, found: Sequence[Violation]) -> None:
    """Keep violations, in the caller's transaction."""
    rows = orjson.dumps([asdict(violation) for violation in found]).decode()
    await connection.execute(_ADD, {"violations": rows})


class ViolationStore:
    """Reads violations and lets old ones go."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: Wanted, *, most: int, before: Position | None) -> list[Violation]:
        """At most `most` of them, newest first, older than `before`."""
        severities = SEVERITIES[SEVERITIES.index(wanted.least_severity) :]
        column = violations.c
        statement = select(violations).where(column.tenant_id == wanted.tenant_id, column.severity.in_(severities))
        if wanted.type:
            statement = statement.where(column.type == wanted.type)
        if wanted.start:
            statement = statement.where(column.create_time >= wanted.start)
        if wanted.end:
            statement = statement.where(column.create_time < wanted.end)
        if before:
            statement = statement.where(tuple_(column.create_time, column.id) < (before.time, before.id))
        statement = statement.order_by(column.create_time.desc(), column.id.desc()).limit(most)
        return [_violation(row) for row in await self._database.fetch("list_violations", statement)]

    async def sweep(self, days: int) -> int:
        """Let go of those older than their tenant says, `days` when it says nothing; returns how many went."""
        swept = 0
        while True:
            gone = await self._database.fetch("sweep_violations", _SWEEP, {"days": days, "most": SWEPT_AT_ONCE})
            swept += len(gone)
            if len(gone) < SWEPT_AT_ONCE:
                return swept


def _violation(row: RowMapping) -> Violation:
    return Violation(**{**row, "packs": tuple(row["packs"])})
