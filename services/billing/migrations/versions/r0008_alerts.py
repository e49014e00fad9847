"""Alerts, and what became of each in each channel."""

from alembic import op

revision = "0008_alerts"
down_revision = "0007_cache_limits"


def upgrade() -> None:
    """Make the tables."""
    op.execute("""
CREATE TABLE alerts (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_alerts PRIMARY KEY,
    kind text NOT NULL,
    tenant_id text NOT NULL,
    severity text NOT NULL,
    title text NOT NULL,
    text text NOT NULL,
    fingerprint text NOT NULL,
    planned boolean NOT NULL DEFAULT false,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_alerts_unplanned ON alerts (id) WHERE NOT planned;
CREATE TABLE alert_deliveries (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_alert_deliveries PRIMARY KEY,
    alert_id bigint NOT NULL CONSTRAINT fk_alert_deliveries_alert_id REFERENCES alerts ON DELETE CASCADE,
    channel text NOT NULL,
    fingerprint text NOT NULL,
    repeats integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    next_time timestamptz NOT NULL DEFAULT now(),
    sent_time timestamptz
);
CREATE INDEX ix_alert_deliveries_alert_id ON alert_deliveries (alert_id);
CREATE INDEX ix_alert_deliveries_channel_fingerprint ON alert_deliveries (channel, fingerprint);
CREATE INDEX ix_alert_deliveries_due ON alert_deliveries (channel, next_time) WHERE sent_time IS NULL;
""")


def downgrade() -> None:
    """Forget them."""
    op.execute("DROP TABLE alert_deliveries, alerts")
