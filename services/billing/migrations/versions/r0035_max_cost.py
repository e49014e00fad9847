"""The most that one request of a tenant may cost; why the mesh ended an answer."""

from alembic import op

revision = "0035_max_cost"
down_revision = "0021_teams"


def upgrade() -> None:
    """Nobody has a limit, and of older rows only the end is known."""
    op.execute("ALTER TABLE tenants ADD COLUMN max_cost_micros bigint NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE ledger ADD COLUMN stop text NOT NULL DEFAULT ''")


def downgrade() -> None:
    """Forget both."""
    op.execute("ALTER TABLE ledger DROP COLUMN stop")
    op.execute("ALTER TABLE tenants DROP COLUMN max_cost_micros")
