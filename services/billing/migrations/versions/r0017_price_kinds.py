"""Prices of cache writes, reasoning, images and requests; empty means as input, as output."""

from alembic import op

revision = "0017_price_kinds"
down_revision = "0016_ledger_months"


def upgrade() -> None:
    """Prices that are there say nothing of these, and go on meaning what they did."""
    op.execute("""
    ALTER TABLE prices
        ADD cache_write_micros bigint CONSTRAINT ck_prices_cache_write_micros CHECK (cache_write_micros >= 0),
        ADD reasoning_micros bigint CONSTRAINT ck_prices_reasoning_micros CHECK (reasoning_micros >= 0),
        ADD image_micros bigint NOT NULL DEFAULT 0 CONSTRAINT ck_prices_image_micros CHECK (image_micros >= 0),
        ADD request_micros bigint NOT NULL DEFAULT 0 CONSTRAINT ck_prices_request_micros CHECK (request_micros >= 0);
    ALTER TABLE prices ALTER image_micros DROP DEFAULT, ALTER request_micros DROP DEFAULT;
    """)
