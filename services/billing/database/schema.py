"""The tables. Migrations make them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    column,
    func,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


def _text(name: str, *, primary_key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=primary_key, nullable=False)


def _micros(name: str) -> Column[int]:
    return Column(name, BigInteger, CheckConstraint(f"{name} >= 0", name=name), nullable=False)


def _time(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False)


def _made() -> Column[object]:
    return Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now())


def _serial() -> Column[int]:
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


def _of_tenant(*, primary_key: bool = False) -> Column[str]:
    return Column("tenant_id", Text, ForeignKey("tenants.id"), primary_key=primary_key, nullable=False)


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


tenants = Table(
    "tenants",
    metadata,
    _text("id", primary_key=True),
    _text("display_name"),
    Column("allowed_models", ARRAY(Text), nullable=False),
    Column("allowed_deployments", ARRAY(Text), nullable=False),
    _text("residency"),
    _text("cache"),
    Column("guard_fail_open", Boolean, nullable=False),
    Column("guard", JSONB, nullable=False, server_default=text("'{}'")),
    _made(),
    Column("tier", Text, nullable=False, server_default="unspecified"),
    Column("routing_strategy", Text, nullable=False, server_default="unspecified"),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("compliance_packs", ARRAY(Text), nullable=False, server_default="{}"),
    Column("violation_days", Integer, nullable=False, server_default="0"),
    Column("cache_limits", JSONB, nullable=False, server_default="{}"),
    _text("currency_code"),
    Column("keep_contents", Boolean, nullable=False, server_default="false"),
    Column("rate_limits", JSONB, nullable=False, server_default=text("'{}'")),
)

keys = Table(
    "keys",
    metadata,
    _text("id", primary_key=True),
    _of_tenant(),
    _text("display_name"),
    Column("roles", ARRAY(Text), nullable=False),
    _made(),
    _time("expire_time"),
    Column("revoke_time", DateTime(timezone=True)),
    _text("team_id"),
    Column("tags", ARRAY(Text), nullable=False),
    Column("policy", JSONB, nullable=False, server_default=text("'{}'")),
    Column("user_id", Text, nullable=False, server_default=""),
    Index(None, "tenant_id", "create_time", "id"),
)

budgets = Table(
    "budgets",
    metadata,
    _of_tenant(primary_key=True),
    _micros("limit_micros"),
    _micros("spent_micros"),
    _micros("reserved_micros"),
    _time("period_start"),
    _text("id", primary_key=True),
    _text("team_id"),
    _text("key_id"),
    _text("cycle"),
    Column("rolling_seconds", BigInteger, nullable=False),
    _text("time_zone"),
    Column("soft", Boolean, nullable=False),
    Column("alert_percents", ARRAY(Integer), nullable=False),
    _count("alerted_percent"),
    _count("version"),
    CheckConstraint("(cycle = 'rolling') = (rolling_seconds > 0)", name="rolling"),
    Index(None, "tenant_id", "team_id", "key_id"),
    # Room on the page for the next version of a row that every request rewrites.
    postgresql_with={"fillfactor": "50"},
)

budgets_now = table("budgets_now", *(column(each.name, each.type) for each in budgets.c))
"""A view: budgets as of now, whether or not a request has begun their new period yet."""

budget_events = Table(
    "budget_events",
    metadata,
    _serial(),
    _of_tenant(),
    _text("budget_id"),
    _count("percent"),
    _micros("spent_micros"),
    _micros("limit_micros"),
    _made(),
    Index(None, "tenant_id", "create_time", "id"),
)

prices = Table(
    "prices",
    metadata,
    _serial(),
    _text("deployment"),
    _text("currency_code"),
    _micros("input_micros"),
    _micros("cached_input_micros"),
    _micros("output_micros"),
    _time("effective_time"),
    UniqueConstraint("deployment", "effective_time"),
)

exchange_rates = Table(
    "exchange_rates",
    metadata,
    _serial(),
    _text("currency_code"),
    _micros("rate_micros"),
    _time("effective_time"),
    UniqueConstraint("currency_code", "effective_time"),
)

reservations = Table(
    "reservations",
    metadata,
    # No foreign key: a row is only made under the lock of its tenant, and checking costs every request.
    _text("tenant_id", primary_key=True),
    _text("request_id", primary_key=True),
    _text("key_id"),
    _text("model"),
    _text("fingerprint"),
    _micros("amount_micros"),
    _time("priced_at"),
    _time("expire_time"),
    _text("team_id"),
    Index(None, "expire_time"),
)

ledger = Table(
    "ledger",
    metadata,
    _serial(),
    _of_tenant(),
    _text("request_id"),
    _text("key_id"),
    _text("model"),
    _text("deployment"),
    _text("provider"),
    _text("cache_status"),
    _count("input_tokens"),
    _count("cached_input_tokens"),
    _count("cache_write_tokens"),
    _count("output_tokens"),
    _count("reasoning_tokens"),
    Column("estimated", Boolean, nullable=False),
    _micros("cost_micros"),
    _micros("saved_micros"),
    _text("currency_code"),
    _text("finish_reason"),
    _made(),
    _text("team_id"),
    Column("tags", ARRAY(Text), nullable=False),
    _micros("overrun_micros"),
    Column("transaction_id", BigInteger, nullable=False),
    UniqueConstraint("request_id", "tenant_id"),
    Index(None, "tenant_id", "create_time", "id"),
    Index(None, "transaction_id"),
)

DIMENSIONS = ("team_id", "key_id", "model", "deployment", "provider", "cache_status")
SUMS = (
    "request_count", "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "cost_micros", "saved_micros", "overrun_micros",
)  # fmt: skip

usage_rollups = Table(
    "usage_rollups",
    metadata,
    _text("tenant_id", primary_key=True),
    _text("span", primary_key=True),
    Column("start", DateTime(timezone=True), primary_key=True, nullable=False),
    *(_text(name, primary_key=True) for name in DIMENSIONS),
    Column("tags", ARRAY(Text), primary_key=True, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in SUMS),
    Index(None, "start", postgresql_where=text("span = 'whole hour'")),
)

rollup_progress = Table(
    "rollup_progress",
    metadata,
    # Of the transaction whose rows come next.
    Column("before_id", BigInteger, primary_key=True, autoincrement=False, nullable=False),
)

audit_chains = Table(
    "audit_chains",
    metadata,
    # No foreign key: an event about a tenant nobody knows is worth keeping.
    _text("tenant_id", primary_key=True),
    Column("length", BigInteger, nullable=False),
    _text("sha256"),
    # Room on the page for the next version of a row that every batch rewrites.
    postgresql_with={"fillfactor": "50"},
)

audit_records = Table(
    "audit_records",
    metadata,
    _text("tenant_id", primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    _text("request_id"),
    _text("sha256"),
    # The very bytes that were hashed.
    _text("body"),
    UniqueConstraint("request_id", "tenant_id"),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    _text("tenant_id", primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    # Hash of the checkpoint before: no two follow the same one.
    _text("previous"),
    _text("jws"),
    # Roots of the full subtrees: what the next checkpoint goes on from.
    Column("peaks", LargeBinary, nullable=False),
    _made(),
    UniqueConstraint("tenant_id", "previous"),
)

violations = Table(
    "violations",
    metadata,
    _serial(),
    _text("tenant_id"),
    _text("request_id"),
    _text("key_id"),
    _text("model"),
    _text("type"),
    _text("severity"),
    Column("packs", ARRAY(Text), nullable=False),
    _text("outcome"),
    _text("rule"),
    _text("direction"),
    _text("context"),
    _time("create_time"),
    Index(None, "tenant_id", "create_time", "id"),
)

alerts = Table(
    "alerts",
    metadata,
    _serial(),
    _text("kind"),
    _text("tenant_id"),
    _text("severity"),
    _text("title"),
    _text("text"),
    _text("fingerprint"),
    Column("planned", Boolean, nullable=False, server_default="false"),
    _made(),
    Index("ix_alerts_unplanned", "id", postgresql_where=text("NOT planned")),
    Index(None, "fingerprint"),
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    _serial(),
    Column("alert_id", BigInteger, ForeignKey("alerts.id", ondelete="CASCADE"), nullable=False),
    _text("channel"),
    _text("fingerprint"),
    Column("repeats", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("sent_time", DateTime(timezone=True)),
    Index(None, "alert_id"),
    Index(None, "channel", "fingerprint"),
    Index("ix_alert_deliveries_due", "channel", "next_time", postgresql_where=text("sent_time IS NULL")),
)

content_keys = Table(
    "content_keys",
    metadata,
    _serial(),
    _text("tenant_id"),
    Column("wrapped", LargeBinary, nullable=False),
    _made(),
    UniqueConstraint("tenant_id"),
)

audit_contents = Table(
    "audit_contents",
    metadata,
    _text("tenant_id", primary_key=True),
    _text("request_id", primary_key=True),
    # No foreign key: whoever destroys a key need not look for what it opened.
    Column("key_id", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    _made(),
    Index(None, "create_time"),
)
