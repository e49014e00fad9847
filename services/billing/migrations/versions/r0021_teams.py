"""Teams, which were words on keys and budgets alone."""

from alembic import op

revision = "0021_teams"
down_revision = "0022_guard_rules"


def upgrade() -> None:
    """Every team that a key or a budget names is one from now on."""
    op.execute("""
    CREATE TABLE teams (
        tenant_id text NOT NULL CONSTRAINT fk_teams_tenant_id REFERENCES tenants,
        id text NOT NULL,
        display_name text NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now(),
        version integer NOT NULL DEFAULT 1,
        CONSTRAINT pk_teams PRIMARY KEY (tenant_id, id)
    );
    INSERT INTO teams (tenant_id, id, display_name)
    SELECT tenant_id, team_id, team_id FROM (
        SELECT tenant_id, team_id FROM keys UNION SELECT tenant_id, team_id FROM budgets
    ) AS named WHERE team_id <> '';
    """)


def downgrade() -> None:
    """Leave them to keys and budgets."""
    op.execute("DROP TABLE teams")
