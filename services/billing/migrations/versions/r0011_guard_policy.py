"""What the guard does for a tenant beyond its rules."""

from alembic import op

revision = "0011_guard_policy"
down_revision = "0010_cost_alerts"


def upgrade() -> None:
    """For tenants that are there it does nothing more."""
    op.execute("ALTER TABLE tenants ADD COLUMN guard jsonb NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Forget it."""
    op.execute("ALTER TABLE tenants DROP COLUMN guard")
