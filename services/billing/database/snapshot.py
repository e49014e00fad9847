"""The audit log as it stands at one moment, read by a command of its own beside the running service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from services.billing.audit.chain import Head
from services.billing.audit.verification import StoredRecord

CONNECT_SECONDS = 10
FETCHED_AT_ONCE = 2000


class Snapshot:
    """Everything in it belongs together, whatever is written meanwhile."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def tenants(self) -> list[str]:
        """Everyone who has a record, a checkpoint or a chain."""
        names = self._connection.execute(
            "SELECT tenant_id FROM audit_chains UNION SELECT tenant_id FROM audit_checkpoints"
            " UNION SELECT DISTINCT tenant_id FROM audit_records ORDER BY tenant_id"
        )
        return [tenant_id for (tenant_id,) in names]

    def head(self, tenant_id: str) -> Head:
        """Where the database says that a chain ends."""
        found = self._connection.execute(
            "SELECT length, sha256 FROM audit_chains WHERE tenant_id = %s", [tenant_id]
        ).fetchone()
        return Head(*found) if found else Head()

    def records(self, tenant_id: str) -> Iterator[StoredRecord]:
        """A tenant's records in their order."""
        with self._connection.cursor("records") as cursor:
            cursor.itersize = FETCHED_AT_ONCE
            cursor.execute("SELECT body, sha256 FROM audit_records WHERE tenant_id = %s ORDER BY position", [tenant_id])
            for body, sha256 in cursor:
                yield StoredRecord(body.encode(), sha256)

    def checkpoints(self, tenant_id: str) -> list[str]:
        """A tenant's checkpoints in their order."""
        rows = self._connection.execute(
            "SELECT jws FROM audit_checkpoints WHERE tenant_id = %s ORDER BY size", [tenant_id]
        )
        return [jws for (jws,) in rows]


@contextmanager
def snapshot(database_url: str) -> Iterator[Snapshot]:
    """Look at the database at SQLAlchemy's URL for the block.

    Raises:
        ValueError: If it is no URL.
    """
    try:
        address = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    except ArgumentError:
        raise ValueError("what names the database is no URL") from None
    with psycopg.connect(address, connect_timeout=CONNECT_SECONDS) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield Snapshot(connection)
