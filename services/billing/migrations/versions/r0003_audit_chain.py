"""The audit log becomes a chain of hashes per tenant, sealed by checkpoints."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC
from itertools import groupby
from typing import Any

from alembic import op
from sqlalchemy import RowMapping, text

revision = "0003_audit_chain"
down_revision = "0002_routing_policy"

_TABLES = """
CREATE TABLE audit_chains (
    tenant_id text CONSTRAINT pk_audit_chains PRIMARY KEY,
    length bigint NOT NULL,
    sha256 text NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE audit_records (
    tenant_id text NOT NULL,
    position bigint NOT NULL,
    request_id text NOT NULL,
    sha256 text NOT NULL,
    body text NOT NULL,
    CONSTRAINT pk_audit_records PRIMARY KEY (tenant_id, position),
    CONSTRAINT uq_audit_records_request_id_tenant_id UNIQUE (request_id, tenant_id)
);
CREATE TABLE audit_checkpoints (
    tenant_id text NOT NULL,
    size bigint NOT NULL,
    previous text NOT NULL,
    jws text NOT NULL,
    peaks bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_audit_checkpoints PRIMARY KEY (tenant_id, size),
    CONSTRAINT uq_audit_checkpoints_tenant_id_previous UNIQUE (tenant_id, previous)
);
"""
_KEPT_FOR_EVER = ("audit_records", "audit_checkpoints")
_RECORD = text("""
INSERT INTO audit_records (tenant_id, position, request_id, sha256, body)
VALUES (:tenant_id, :position, :request_id, :sha256, :body)
""")
_CHAIN = text("INSERT INTO audit_chains (tenant_id, length, sha256) VALUES (:tenant_id, :position, :sha256)")


def upgrade() -> None:
    """Make the tables, move what was written down until now, and let go of its old place."""
    op.execute(_TABLES)
    _move()
    op.execute("DROP TABLE audit_events")
    for table in _KEPT_FOR_EVER:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def _move() -> None:
    connection = op.get_bind()
    events = connection.execute(text("SELECT * FROM audit_events ORDER BY tenant_id, id")).mappings().all()
    for _, of_tenant in groupby(events, lambda event: event["tenant_id"]):
        records = list(_chained(of_tenant))
        connection.execute(_RECORD, records)
        connection.execute(_CHAIN, {name: records[-1][name] for name in ("tenant_id", "position", "sha256")})


def _chained(events: Iterator[RowMapping]) -> Iterator[dict[str, Any]]:
    previous = "0" * 64
    for position, event in enumerate(events, start=1):
        said = {name: value for name, value in event.items() if value and value != "unspecified" and name != "id"}
        said["create_time"] = event["create_time"].astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
        place = {"v": 1, "position": position, "previous": previous}
        body = json.dumps({**said, **place}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(body.encode()).hexdigest()
        yield {
            "tenant_id": event["tenant_id"],
            "position": position,
            "request_id": event["request_id"],
            "sha256": previous,
            "body": body,
        }


def downgrade() -> None:
    """Refuse: the old table cannot hold what records hold."""
    raise NotImplementedError("the audit log is only ever added to")
