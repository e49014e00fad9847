"""Sums of the ledger by hour, day and month, and how far they have come."""

from alembic import op

revision = "0006_rollups"
down_revision = "0005_budgets"

_LEDGER = """
-- Ids are given out before a transaction ends: only by their transactions can rows be told that came later than others.
ALTER TABLE ledger ADD transaction_id bigint NOT NULL DEFAULT CAST(CAST(pg_current_xact_id() AS text) AS bigint);
CREATE INDEX ix_ledger_transaction_id ON ledger (transaction_id);
"""

_ROLLUPS = """
CREATE TABLE usage_rollups (
    tenant_id text NOT NULL,
    span text NOT NULL,
    start timestamptz NOT NULL,
    team_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    deployment text NOT NULL,
    provider text NOT NULL,
    cache_status text NOT NULL,
    tags text[] NOT NULL,
    request_count bigint NOT NULL,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cost_micros bigint NOT NULL,
    saved_micros bigint NOT NULL,
    overrun_micros bigint NOT NULL,
    CONSTRAINT pk_usage_rollups PRIMARY KEY
        (tenant_id, span, start, team_id, key_id, model, deployment, provider, cache_status, tags)
);
CREATE TABLE rollup_progress (
    before_id bigint NOT NULL CONSTRAINT pk_rollup_progress PRIMARY KEY
);
INSERT INTO rollup_progress VALUES (0);
"""


def upgrade() -> None:
    """Rows that are there already count as the first to be rolled up."""
    op.execute(_LEDGER)
    op.execute(_ROLLUPS)
