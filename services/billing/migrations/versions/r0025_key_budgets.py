"""Keys go on with the budgets of those they were rotated from."""

from alembic import op

revision = "0025_key_budgets"
down_revision = "0024_team_models"


def upgrade() -> None:
    """Whom a key was rotated from was not written down: those that are there go on with nobody's."""
    op.execute("ALTER TABLE keys ADD COLUMN budget_key_ids text[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Forget it."""
    op.execute("ALTER TABLE keys DROP COLUMN budget_key_ids")
