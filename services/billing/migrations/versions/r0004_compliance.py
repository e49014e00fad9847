"""Violations, and which of them a tenant counts."""

from alembic import op

revision = "0004_compliance"
down_revision = "0003_audit_chain"


def upgrade() -> None:
    """Tenants that are there are held to the base pack alone."""
    op.execute(
        "ALTER TABLE tenants"
        " ADD COLUMN compliance_packs text[] NOT NULL DEFAULT '{}',"
        " ADD COLUMN violation_days integer NOT NULL DEFAULT 0"
    )
    op.execute("""
CREATE TABLE violations (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_violations PRIMARY KEY,
    tenant_id text NOT NULL,
    request_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    type text NOT NULL,
    severity text NOT NULL,
    packs text[] NOT NULL,
    outcome text NOT NULL,
    rule text NOT NULL,
    direction text NOT NULL,
    context text NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE INDEX ix_violations_tenant_id_create_time_id ON violations (tenant_id, create_time, id);
""")


def downgrade() -> None:
    """Forget them."""
    op.execute("DROP TABLE violations")
    op.execute("ALTER TABLE tenants DROP COLUMN compliance_packs, DROP COLUMN violation_days")
