"""Rules of a tenant's own, as the guard wrote them; their version stands beside the tenant's policy."""

from alembic import op

revision = "0022_guard_rules"
down_revision = "0020_changes"


def upgrade() -> None:
    """Tenants that are there have none."""
    op.execute("ALTER TABLE tenants ADD COLUMN guard_rules_version text NOT NULL DEFAULT ''")
    op.execute("""
    CREATE TABLE guard_rules (
        tenant_id text CONSTRAINT pk_guard_rules PRIMARY KEY
            CONSTRAINT fk_guard_rules_tenant_id REFERENCES tenants,
        rules_json text NOT NULL,
        version text NOT NULL
    )
    """)


def downgrade() -> None:
    """Forget them."""
    op.execute("DROP TABLE guard_rules")
    op.execute("ALTER TABLE tenants DROP COLUMN guard_rules_version")
