"""A tenant's audit log, and what somebody with all rights over the database does to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psycopg

from services.billing.audit.anchor import anchors
from services.billing.audit.chain import canonical, sha256
from services.billing.audit.checkpoints import Seal
from services.billing.audit.event import Event, Finding
from services.billing.audit.notary import Notary
from services.billing.database.alerts import AlertStore
from services.billing.database.audit import AuditStore
from services.billing.database.checkpoints import CheckpointStore
from services.billing.database.engine import Database
from services.billing.key_file import signing_keys_from

Verify = Callable[..., tuple[int, str]]
"""Runs `llmmesh-audit verify`; its status, and what it prints."""

RECORDS, SEALED_EVERY = 30, 10


def event(number: int, tenant_id: str = "acme") -> Event:
    return Event(
        request_id=f"r{number}", tenant_id=tenant_id, outcome="answered", create_time=datetime.now(UTC), model="малая",
        findings=(Finding("injection.override.en", "patterns", "prompt_injection", "high", "input"),),
    )  # fmt: skip


@dataclass
class Log:
    """A tenant's chain of 30 records with a checkpoint after every ten, each anchored."""

    url: str
    folder: Path

    @property
    def key_file(self) -> Path:
        return self.folder / "audit-key.json"

    @property
    def anchor(self) -> Path:
        return self.folder / "anchor.jsonl"

    async def write(self) -> None:
        database = Database(self.url, seconds=20, connections=2)
        database.open()
        store = AuditStore(database)
        notary = self.notary(database)
        for start in range(0, RECORDS, SEALED_EVERY):
            await store.append([[event(start + number + 1) for number in range(SEALED_EVERY)]])
            await notary.seal_grown()
        await database.close()

    def notary(self, database: Database) -> Notary:
        seal = Seal(signing_keys_from(self.key_file))
        stores = AuditStore(database), CheckpointStore(database), AlertStore(database)
        return Notary(*stores, seal, list(anchors(self.anchor, None)))

    def tamper(self, *statements: str, **values: Any) -> None:
        """What a superuser can do: triggers are no obstacle."""
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            for statement in statements:
                connection.execute(statement.encode(), values or None)

    def rows(self) -> list[tuple[int, dict[str, Any]]]:
        with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
            found = connection.execute("SELECT position, body FROM audit_records ORDER BY position").fetchall()
        return [(position, orjson.loads(body)) for position, body in found]

    def rewrite(self, start: int, change: dict[str, Any], *, until: int = RECORDS) -> None:
        """Change a record and hash it, and those after it up to `until`, anew."""
        rows = self.rows()
        previous = ""
        for position, fields in rows[start - 1 : until]:
            new = canonical({**fields, **(change if position == start else {"previous": previous})})
            previous = sha256(new)
            self.tamper(
                "UPDATE audit_records SET body = %(body)s, sha256 = %(sha256)s WHERE position = %(position)s",
                body=new.decode(), sha256=previous, position=position,
            )  # fmt: skip
        if until == RECORDS:
            self.tamper("UPDATE audit_chains SET sha256 = %(sha256)s", sha256=previous)
