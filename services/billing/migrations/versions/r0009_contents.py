"""Prompts and answers of tenants that want them kept, encrypted, and the wrapped keys to them."""

from alembic import op

revision = "0009_contents"
down_revision = "0008_alerts"


def upgrade() -> None:
    """Nobody's are kept until a policy says so."""
    op.execute("ALTER TABLE tenants ADD COLUMN keep_contents boolean NOT NULL DEFAULT false")
    op.execute("""
CREATE TABLE content_keys (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_content_keys PRIMARY KEY,
    tenant_id text NOT NULL CONSTRAINT uq_content_keys_tenant_id UNIQUE,
    wrapped bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE audit_contents (
    tenant_id text NOT NULL,
    request_id text NOT NULL,
    key_id bigint NOT NULL,
    sealed bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_audit_contents PRIMARY KEY (tenant_id, request_id)
);
CREATE INDEX ix_audit_contents_create_time ON audit_contents (create_time);
""")


def downgrade() -> None:
    """Forget them."""
    op.execute("DROP TABLE audit_contents, content_keys")
    op.execute("ALTER TABLE tenants DROP COLUMN keep_contents")
