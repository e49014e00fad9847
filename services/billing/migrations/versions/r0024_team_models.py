"""Models of teams; gateways are told of their keys when they change."""

from alembic import op

revision = "0024_team_models"
down_revision = "0023_margins"


def upgrade() -> None:
    """Teams that are there may name what their tenants may."""
    op.execute("ALTER TABLE teams ADD COLUMN allowed_models text[] NOT NULL DEFAULT '{}'")
    op.execute("""
    CREATE FUNCTION announce_team() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('llmmesh_billing', 'keys ' || NEW.tenant_id);
        RETURN NULL;
    END $$;
    CREATE TRIGGER announce AFTER UPDATE OF allowed_models ON teams FOR EACH ROW
        WHEN (OLD.allowed_models IS DISTINCT FROM NEW.allowed_models) EXECUTE FUNCTION announce_team();
    """)
