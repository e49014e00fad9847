"""Rows that correct an estimate; the time whose prices a row was billed at."""

from alembic import op

revision = "0018_usage_corrections"
down_revision = "0017_price_kinds"


def upgrade() -> None:
    """Only a correction may take money back, and a budget be better off for it than when its period began."""
    op.execute("""
    ALTER TABLE ledger
        ADD correction boolean NOT NULL DEFAULT false,
        ADD priced_at timestamptz,
        DROP CONSTRAINT ck_ledger_cost_micros,
        DROP CONSTRAINT ck_ledger_overrun_micros;
    ALTER TABLE ledger
        ADD CONSTRAINT ck_ledger_cost_micros CHECK (cost_micros >= 0 OR correction),
        ADD CONSTRAINT ck_ledger_overrun_micros CHECK (overrun_micros >= 0 OR correction);
    ALTER TABLE budgets DROP CONSTRAINT ck_budgets_spent_micros;
    """)
