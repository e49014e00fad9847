"""What the cache keeps for a tenant."""

from alembic import op

revision = "0007_cache_limits"
down_revision = "0006_rollups"


def upgrade() -> None:
    """Tenants that are there keep the cache's own limits."""
    op.execute("ALTER TABLE tenants ADD COLUMN cache_limits jsonb NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Forget them."""
    op.execute("ALTER TABLE tenants DROP COLUMN cache_limits")
