"""Versions and deletion of tenants and keys, and requests that may be sent again."""

from alembic import op

revision = "0020_changes"
down_revision = "0018_usage_corrections"

_ANNOUNCE = """
CREATE FUNCTION announce_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('llmmesh_billing', CASE count(*) WHEN 1 THEN 'key ' || min(id) ELSE 'keys ' || tenant_id END)
    FROM changed GROUP BY tenant_id;
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT ON keys FOR EACH ROW EXECUTE FUNCTION announce('key');
CREATE TRIGGER announce_changes AFTER UPDATE ON keys REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION announce_keys();
"""


def upgrade() -> None:
    """What is there becomes its own first version; keys that change together are announced as one change."""
    op.execute("ALTER TABLE tenants ADD COLUMN delete_time timestamptz, ADD COLUMN version integer NOT NULL DEFAULT 1")
    op.execute("ALTER TABLE keys ADD COLUMN version integer NOT NULL DEFAULT 1")
    op.execute("""
    CREATE TABLE change_requests (
        caller_id text NOT NULL,
        request_id text NOT NULL,
        fingerprint text NOT NULL,
        resource text NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_change_requests PRIMARY KEY (caller_id, request_id)
    );
    CREATE INDEX ix_change_requests_create_time ON change_requests (create_time);
    """)
    op.execute("DROP TRIGGER announce ON keys")
    op.execute(_ANNOUNCE)


def downgrade() -> None:
    """Forget them. Tenants that were deleted are back."""
    op.execute("DROP TRIGGER announce ON keys; DROP TRIGGER announce_changes ON keys; DROP FUNCTION announce_keys")
    op.execute("CREATE TRIGGER announce AFTER INSERT OR UPDATE ON keys FOR EACH ROW EXECUTE FUNCTION announce('key')")
    op.execute("DROP TABLE change_requests")
    op.execute("ALTER TABLE keys DROP COLUMN version")
    op.execute("ALTER TABLE tenants DROP COLUMN version, DROP COLUMN delete_time")
