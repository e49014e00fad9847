"""The most that a request may cost, in its ledger row: a correction heeds it too."""

from alembic import op

revision = "0026_most_cost"
down_revision = "0025_key_budgets"


def upgrade() -> None:
    """Of older rows it is not known."""
    op.execute("ALTER TABLE ledger ADD COLUMN most_micros bigint")


def downgrade() -> None:
    """Forget it."""
    op.execute("ALTER TABLE ledger DROP COLUMN most_micros")
