"""Finding hours that cost too much, and whether people were told."""

from alembic import op

revision = "0010_cost_alerts"
down_revision = "0009_contents"


def upgrade() -> None:
    """Make two indexes."""
    op.execute("CREATE INDEX ix_usage_rollups_start ON usage_rollups (start) WHERE span = 'whole hour'")
    op.execute("CREATE INDEX ix_alerts_fingerprint ON alerts (fingerprint)")
