"""Margins of tenants, and in every row what was charged above what the provider takes."""

from alembic import op

revision = "0023_margins"
down_revision = "0035_max_cost"


def upgrade() -> None:
    """Nobody had a margin so far: rows that are there say so without being touched."""
    op.execute("""
    CREATE TABLE margins (
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_margins PRIMARY KEY,
        tenant_id text NOT NULL CONSTRAINT fk_margins_tenant_id REFERENCES tenants,
        basis_points integer NOT NULL
            CONSTRAINT ck_margins_basis_points CHECK (basis_points BETWEEN -10000 AND 100000),
        effective_time timestamptz NOT NULL,
        CONSTRAINT uq_margins_tenant_id_effective_time UNIQUE (tenant_id, effective_time)
    );
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON margins
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER announce AFTER INSERT ON margins FOR EACH STATEMENT EXECUTE FUNCTION announce('prices');
    ALTER TABLE ledger
        ADD margin_micros bigint NOT NULL DEFAULT 0,
        ADD margin_points integer NOT NULL DEFAULT 0;
    ALTER TABLE usage_rollups ADD margin_micros bigint NOT NULL DEFAULT 0;
    ALTER TABLE usage_rollups ALTER margin_micros DROP DEFAULT;
    """)
