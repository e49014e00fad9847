"""The audit log in Postgres. A trigger refuses to change or remove a record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import psycopg
from sqlalchemy import RowMapping, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.audit.chain import NOTHING, Head, Record, chained
from services.billing.audit.event import Event
from services.billing.compliance.alarm import alerts_of
from services.billing.compliance.violation import Violation
from services.billing.database.alerts import add_alerts
from services.billing.database.engine import ConnectionStale, Database, driver
from services.billing.database.schema import audit_chains, audit_records
from services.billing.database.violations import add_violations
from services.billing.metrics import AUDIT_RECORDS

_LOCK = text("""
INSERT INTO audit_chains (tenant_id, length, sha256)
SELECT tenant_id, 0, :nothing FROM unnest(CAST(:tenant_ids AS text[])) AS tenant_id ORDER BY tenant_id
ON CONFLICT (tenant_id) DO UPDATE SET length = audit_chains.length
RETURNING tenant_id, length, sha256
""")
"""Locks the chains, in one order whoever asks, and makes those that are new."""
_KNOWN = text("""
SELECT tenant_id, request_id FROM audit_records WHERE (request_id, tenant_id) IN
    (SELECT * FROM unnest(CAST(:request_ids AS text[]), CAST(:tenant_ids AS text[])))
""")
_GROW = text("""
UPDATE audit_chains AS chain SET length = grown.length, sha256 = grown.sha256
FROM unnest(CAST(:tenant_ids AS text[]), CAST(:lengths AS bigint[]), CAST(:hashes AS text[]))
    AS grown(tenant_id, length, sha256)
WHERE chain.tenant_id = grown.tenant_id
""")
_COPY = "COPY audit_records (tenant_id, position, request_id, sha256, body) FROM STDIN"


def _none(_: Event) -> Iterable[Violation]:
    return ()


class AuditStore:
    """Appends events to their tenants' chains, with what `violations_of` counts of them, and reads them back."""

    def __init__(self, database: Database, violations_of: Callable[[Event], Iterable[Violation]] = _none) -> None:
        self._database = database
        self._violations_of = violations_of

    async def append(self, batches: Sequence[Sequence[Event]]) -> list[None]:
        """Append events, all in one transaction; known request ids are skipped. They are on disk when this returns.

        Chains are locked: whichever process writes, a chain never forks.
        """
        events = [event for batch in batches for event in batch]
        if events:
            try:
                await self._append(events)
            except ConnectionStale:
                await self._append(events)
        return [None] * len(batches)

    async def page(self, tenant_id: str, request_id: str, *, most: int, before: int | None) -> list[Record]:
        """At most `most` records of a tenant's request, or of all if it is empty, newest first, before a position."""
        statement = select(audit_records).where(audit_records.c.tenant_id == tenant_id)
        if request_id:
            statement = statement.where(audit_records.c.request_id == request_id)
        if before is not None:
            statement = statement.where(audit_records.c.position < before)
        statement = statement.order_by(audit_records.c.position.desc()).limit(most)
        return [_record(row) for row in await self._database.fetch("list_events", statement)]

    async def between(self, tenant_id: str, after: int, until: int, *, most: int) -> list[Record]:
        """At most `most` records of a tenant, oldest first, after one position and up to another."""
        place = audit_records.c.position
        statement = (
            select(audit_records)
            .where(audit_records.c.tenant_id == tenant_id, place > after, place <= until)
            .order_by(audit_records.c.position)
            .limit(most)
        )
        return [_record(row) for row in await self._database.fetch("read_chain", statement)]

    async def head(self, tenant_id: str) -> Head:
        """Where a tenant's chain ends."""
        statement = select(audit_chains).where(audit_chains.c.tenant_id == tenant_id)
        rows = await self._database.fetch("chain_head", statement)
        return Head(rows[0]["length"], rows[0]["sha256"]) if rows else Head()

    async def _append(self, events: Sequence[Event]) -> None:
        async with self._database.transaction("append_events") as connection:
            heads = await _locked_heads(connection, events)
            fresh = await _unknown(connection, events)
            records = list(_records(heads, fresh))
            violations = [violation for event in fresh for violation in self._violations_of(event)]
            if records:
                await _write(await driver(connection), records)
                await _grow(connection, records)
            if violations:
                await add_violations(connection, violations)
                await add_alerts(connection, alerts_of(violations))
        AUDIT_RECORDS.inc(len(records))


async def _locked_heads(connection: AsyncConnection, events: Iterable[Event]) -> dict[str, Head]:
    tenant_ids = sorted({event.tenant_id for event in events})
    rows = await connection.execute(_LOCK, {"tenant_ids": tenant_ids, "nothing": NOTHING})
    return {row.tenant_id: Head(row.length, row.sha256) for row in rows}


async def _unknown(connection: AsyncConnection, events: Sequence[Event]) -> list[Event]:
    """The events to append, each request once."""
    keys = {(event.tenant_id, event.request_id): event for event in reversed(events)}
    tenant_ids, request_ids = zip(*keys, strict=True)
    rows = await connection.execute(_KNOWN, {"request_ids": list(request_ids), "tenant_ids": list(tenant_ids)})
    for row in rows:
        del keys[row.tenant_id, row.request_id]
    return list(reversed(keys.values()))


def _records(heads: dict[str, Head], events: Iterable[Event]) -> Iterable[Record]:
    ordered = sorted(events, key=lambda event: event.tenant_id)
    for tenant_id, of_tenant in groupby(ordered, lambda event: event.tenant_id):
        yield from chained(heads[tenant_id], of_tenant)


async def _write(connection: psycopg.AsyncConnection[Any], records: Iterable[Record]) -> None:
    async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for record in records:
            await copy.write_row((record.tenant_id, record.position, record.request_id, record.sha256, record.body))


async def _grow(connection: AsyncConnection, records: Iterable[Record]) -> None:
    last = {record.tenant_id: record.head for record in records}
    grown = {
        "tenant_ids": list(last),
        "lengths": [head.position for head in last.values()],
        "hashes": [head.sha256 for head in last.values()],
    }
    await connection.execute(_GROW, grown)


def _record(row: RowMapping) -> Record:
    return Record(**row)
