"""What a tenant pays for, in what order it is served, and the tags that rules ask for."""

from alembic import op

revision = "0002_routing_policy"
down_revision = "0001"


def upgrade() -> None:
    """Tenants that are there keep what the routes file gives everybody."""
    op.execute(
        "ALTER TABLE tenants"
        " ADD COLUMN tier text NOT NULL DEFAULT 'unspecified',"
        " ADD COLUMN routing_strategy text NOT NULL DEFAULT 'unspecified',"
        " ADD COLUMN tags text[] NOT NULL DEFAULT '{}'"
    )


def downgrade() -> None:
    """Forget them."""
    op.execute("ALTER TABLE tenants DROP COLUMN tier, DROP COLUMN routing_strategy, DROP COLUMN tags")
