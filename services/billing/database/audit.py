"""The audit log in Postgres. A trigger refuses to change or remove an event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import orjson
from sqlalchemy import RowMapping, select, text, tuple_

from services.billing.audit.event import Event
from services.billing.database.engine import Database
from services.billing.database.schema import audit_events
from services.billing.pagination import Position

_APPEND = text("""
INSERT INTO audit_events (tenant_id, request_id, key_id, model, outcome, reason, data_class, guard_rules,
    guard_policy_version, deployment, cache_status, prompt_sha256, answer_sha256, create_time)
SELECT tenant_id, request_id, key_id, model, outcome, reason, data_class, guard_rules,
    guard_policy_version, deployment, cache_status, prompt_sha256, answer_sha256,
    least(coalesce(create_time, now()), now())
FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS event(
    tenant_id text, request_id text, key_id text, model text, outcome text, reason text, data_class text,
    guard_rules text[], guard_policy_version text, deployment text, cache_status text, prompt_sha256 text,
    answer_sha256 text, create_time timestamptz)
ON CONFLICT (request_id, tenant_id) DO NOTHING
""")


class AuditStore:
    """Appends events and reads them back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, events: Sequence[Event]) -> None:
        """Append events; known request ids are skipped. They are on disk when this returns."""
        rows = orjson.dumps([asdict(event) for event in events]).decode()
        await self._database.fetch("append_events", _APPEND, {"events": rows})

    async def page(self, tenant_id: str, *, most: int, before: Position | None) -> list[Event]:
        """At most `most` events of a tenant, newest first, older than `before`."""
        statement = select(audit_events).where(audit_events.c.tenant_id == tenant_id)
        if before:
            place = tuple_(audit_events.c.create_time, audit_events.c.id)
            statement = statement.where(place < (before.time, before.id))
        statement = statement.order_by(audit_events.c.create_time.desc(), audit_events.c.id.desc()).limit(most)
        return [_event(row) for row in await self._database.fetch("list_events", statement)]


def _event(row: RowMapping) -> Event:
    return Event(**{**row, "guard_rules": tuple(row["guard_rules"])})
