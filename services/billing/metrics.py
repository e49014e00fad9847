"""What billing counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from services.billing.money import MICROS

COST = Counter("llm_cost", "Settled cost, in units of the currency.", ["provider", "model", "currency"])
SAVED = Counter("llm_saved", "Cost that cached answers avoided, in units of the currency.", ["model", "currency"])
RESERVATIONS = Counter("llm_reservations", "Reservations asked for, by what became of it.", ["outcome"])
LEDGER_ROWS = Counter("llm_ledger_rows", "Ledger rows written, by what the cache said.", ["cache"])
LAPSED = Counter("llm_reservations_lapsed", "Reservations let go because nobody settled them in time.")
AUDIT_RECORDS = Counter("llmmesh_audit_records", "Audit records written.")
CHECKPOINTS = Counter("llmmesh_audit_checkpoints", "Checkpoints signed.")
CHECKPOINTS_UNANCHORED = Gauge(
    "llmmesh_audit_checkpoints_unanchored", "Checkpoints that wait for a place outside the database.", ["anchor"]
)
CHAINS_BROKEN = Counter("llmmesh_audit_chains_broken", "Times a chain was found to be not what was written.")
BUDGET_EVENTS = Counter("llm_budget_events", "Thresholds that budgets reached.")
ALERTS = Counter(
    "llmmesh_alerts", "Alerts carried, by channel and whether the receiver took them.", ["channel", "outcome"]
)
BATCH_ITEMS = Histogram(
    "llmmesh_billing_batch_items", "Calls written by one statement.", ["lane"], buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
STATEMENT_SECONDS = Histogram(
    "llmmesh_billing_database_seconds",
    "Time of one database operation, waiting for a connection included.",
    ["operation"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 2, 5),
)


def count_cost(provider: str, model: str, currency_code: str, cost_micros: int) -> None:
    """Add a settled cost."""
    COST.labels(provider, model, currency_code).inc(cost_micros / MICROS)
