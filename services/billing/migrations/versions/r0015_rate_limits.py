"""Rate limits of tenants, and what each key may do by itself."""

from alembic import op

revision = "0015_rate_limits"
down_revision = "0011_guard_policy"


def upgrade() -> None:
    """Tenants and keys that are there have no limits; from now on every change of a key is announced."""
    op.execute("ALTER TABLE tenants ADD COLUMN rate_limits jsonb NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE keys ADD COLUMN policy jsonb NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE keys ADD COLUMN user_id text NOT NULL DEFAULT ''")
    op.execute("DROP TRIGGER announce ON keys")
    op.execute("CREATE TRIGGER announce AFTER INSERT OR UPDATE ON keys FOR EACH ROW EXECUTE FUNCTION announce('key')")


def downgrade() -> None:
    """Forget them."""
    op.execute("DROP TRIGGER announce ON keys")
    op.execute(
        "CREATE TRIGGER announce AFTER UPDATE OF revoke_time ON keys FOR EACH ROW EXECUTE FUNCTION announce('key')"
    )
    op.execute("ALTER TABLE keys DROP COLUMN user_id")
    op.execute("ALTER TABLE keys DROP COLUMN policy")
    op.execute("ALTER TABLE tenants DROP COLUMN rate_limits")
