"""Indexes by which old rows are found without reading those that stay."""

from alembic import op

revision = "0027_ages"
down_revision = "0026_most_cost"


def upgrade() -> None:
    """How long contents are kept is said by each tenant, so their time alone finds none of them."""
    op.execute("DROP INDEX ix_audit_contents_create_time")
    op.execute("CREATE INDEX ix_audit_contents_tenant_id_create_time ON audit_contents (tenant_id, create_time)")
    op.execute("CREATE INDEX ix_alerts_create_time ON alerts (create_time)")


def downgrade() -> None:
    """Find them as before."""
    op.execute("DROP INDEX ix_alerts_create_time, ix_audit_contents_tenant_id_create_time")
    op.execute("CREATE INDEX ix_audit_contents_create_time ON audit_contents (create_time)")
