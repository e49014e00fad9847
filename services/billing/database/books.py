"""Tables of money: budgets, prices, reservations, the ledger and its sums."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    column,
    func,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from services.billing.database.columns import count, made, metadata, micros, moment, of_tenant, serial, words

budgets = Table(
    "budgets",
    metadata,
    of_tenant(primary_key=True),
    micros("limit_micros"),
    # Negative where corrections gave back more than a period has cost so far.
    Column("spent_micros", BigInteger, nullable=False),
    micros("reserved_micros"),
    moment("period_start"),
    words("id", primary_key=True),
    words("team_id"),
    words("key_id"),
    words("cycle"),
    Column("rolling_seconds", BigInteger, nullable=False),
    words("time_zone"),
    Column("soft", Boolean, nullable=False),
    Column("alert_percents", ARRAY(Integer), nullable=False),
    count("alerted_percent"),
    count("version"),
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
    serial(),
    of_tenant(),
    words("budget_id"),
    count("percent"),
    micros("spent_micros"),
    micros("limit_micros"),
    made(),
    Index(None, "tenant_id", "create_time", "id"),
)

prices = Table(
    "prices",
    metadata,
    serial(),
    words("deployment"),
    words("currency_code"),
    micros("input_micros"),
    micros("cached_input_micros"),
    micros("output_micros"),
    moment("effective_time"),
    micros("cache_write_micros", nullable=True),
    micros("reasoning_micros", nullable=True),
    micros("image_micros"),
    micros("request_micros"),
    UniqueConstraint("deployment", "effective_time"),
)

exchange_rates = Table(
    "exchange_rates",
    metadata,
    serial(),
    words("currency_code"),
    micros("rate_micros"),
    moment("effective_time"),
    UniqueConstraint("currency_code", "effective_time"),
)

margins = Table(
    "margins",
    metadata,
    serial(),
    of_tenant(),
    Column(
        "basis_points",
        Integer,
        CheckConstraint("basis_points BETWEEN -10000 AND 100000", name="basis_points"),
        nullable=False,
    ),
    moment("effective_time"),
    UniqueConstraint("tenant_id", "effective_time"),
)

reservations = Table(
    "reservations",
    metadata,
    # No foreign key: a row is only made under the lock of its tenant, and checking costs every request.
    words("tenant_id", primary_key=True),
    words("request_id", primary_key=True),
    words("key_id"),
    words("model"),
    words("fingerprint"),
    micros("amount_micros"),
    moment("priced_at"),
    moment("expire_time"),
    words("team_id"),
    Index(None, "expire_time"),
)

billed_requests = Table(
    "billed_requests",
    metadata,
    words("request_id", primary_key=True),
    words("tenant_id", primary_key=True),
    Column("cost_micros", BigInteger, nullable=False),
    made(),
)

ledger = Table(
    "ledger",
    metadata,
    # A number is not unique by itself where a table has partitions.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # No foreign key: whoever adds a row has looked the tenant up, and checking costs every row.
    words("tenant_id", primary_key=True),
    words("request_id"),
    words("key_id"),
    words("model"),
    words("deployment"),
    words("provider"),
    words("cache_status"),
    count("input_tokens"),
    count("cached_input_tokens"),
    count("cache_write_tokens"),
    count("output_tokens"),
    count("reasoning_tokens"),
    Column("estimated", Boolean, nullable=False),
    Column(
        "cost_micros", BigInteger, CheckConstraint("cost_micros >= 0 OR correction", name="cost_micros"), nullable=False
    ),
    micros("saved_micros"),
    words("currency_code"),
    words("finish_reason"),
    Column("create_time", DateTime(timezone=True), primary_key=True, server_default=func.now()),
    words("team_id"),
    Column("tags", ARRAY(Text), nullable=False),
    Column(
        "overrun_micros",
        BigInteger,
        CheckConstraint("overrun_micros >= 0 OR correction", name="overrun_micros"),
        nullable=False,
    ),
    Column("transaction_id", BigInteger, nullable=False),
    count("image_count"),
    micros("stopped_micros"),
    Column("correction", Boolean, nullable=False, server_default="false"),
    # Empty in rows older than this column: billed at the prices of when they were made.
    Column("priced_at", DateTime(timezone=True)),
    Column("stop", Text, nullable=False, server_default=""),
    # Part of cost and overrun together; less than nothing where the tenant has a discount.
    Column("margin_micros", BigInteger, nullable=False, server_default="0"),
    Column("margin_points", Integer, nullable=False, server_default="0"),
    # Empty where nobody said, and in rows older than this column.
    Column("most_micros", BigInteger),
    Index(None, "transaction_id"),
    postgresql_partition_by="RANGE (create_time)",
)

DIMENSIONS = ("team_id", "key_id", "model", "deployment", "provider", "cache_status")
SUMS = (
    "request_count", "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "cost_micros", "saved_micros", "overrun_micros", "image_count", "stopped_micros",
    "margin_micros",
)  # fmt: skip

usage_rollups = Table(
    "usage_rollups",
    metadata,
    words("tenant_id", primary_key=True),
    words("span", primary_key=True),
    Column("start", DateTime(timezone=True), primary_key=True, nullable=False),
    *(words(name, primary_key=True) for name in DIMENSIONS),
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
