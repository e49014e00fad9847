"""Tables of tenants, audit, compliance and alerts. Migrations make them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from services.billing.database.columns import made, metadata, moment, of_tenant, serial, words

tenants = Table(
    "tenants",
    metadata,
    words("id", primary_key=True),
    words("display_name"),
    Column("allowed_models", ARRAY(Text), nullable=False),
    Column("allowed_deployments", ARRAY(Text), nullable=False),
    words("residency"),
    words("cache"),
    Column("guard_fail_open", Boolean, nullable=False),
    Column("guard", JSONB, nullable=False, server_default=text("'{}'")),
    made(),
    Column("tier", Text, nullable=False, server_default="unspecified"),
    Column("routing_strategy", Text, nullable=False, server_default="unspecified"),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("compliance_packs", ARRAY(Text), nullable=False, server_default="{}"),
    Column("violation_days", Integer, nullable=False, server_default="0"),
    Column("cache_limits", JSONB, nullable=False, server_default="{}"),
    words("currency_code"),
    Column("keep_contents", Boolean, nullable=False, server_default="false"),
    Column("rate_limits", JSONB, nullable=False, server_default=text("'{}'")),
    Column("guard_rules_version", Text, nullable=False, server_default=""),
    Column("max_cost_micros", BigInteger, nullable=False, server_default="0"),
    Column("delete_time", DateTime(timezone=True)),
    Column("version", Integer, nullable=False, server_default="1"),
)

guard_rules = Table("guard_rules", metadata, of_tenant(primary_key=True), words("rules_json"), words("version"))

keys = Table(
    "keys",
    metadata,
    words("id", primary_key=True),
    of_tenant(),
    words("display_name"),
    Column("roles", ARRAY(Text), nullable=False),
    made(),
    moment("expire_time"),
    Column("revoke_time", DateTime(timezone=True)),
    words("team_id"),
    Column("tags", ARRAY(Text), nullable=False),
    Column("policy", JSONB, nullable=False, server_default=text("'{}'")),
    Column("user_id", Text, nullable=False, server_default=""),
    Column("version", Integer, nullable=False, server_default="1"),
    # Keys that it was rotated from and that had budgets: it spends from these too.
    Column("budget_key_ids", ARRAY(Text), nullable=False, server_default="{}"),
    Index(None, "tenant_id", "create_time", "id"),
)

teams = Table(
    "teams",
    metadata,
    of_tenant(primary_key=True),
    words("id", primary_key=True),
    words("display_name"),
    made(),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("allowed_models", ARRAY(Text), nullable=False, server_default="{}"),
)

change_requests = Table(
    "change_requests",
    metadata,
    words("caller_id", primary_key=True),
    words("request_id", primary_key=True),
    words("fingerprint"),
    words("resource"),
    made(),
    Index(None, "create_time"),
)

audit_chains = Table(
    "audit_chains",
    metadata,
    # No foreign key: an event about a tenant nobody knows is worth keeping.
    words("tenant_id", primary_key=True),
    Column("length", BigInteger, nullable=False),
    words("sha256"),
    # Room on the page for the next version of a row that every batch rewrites.
    postgresql_with={"fillfactor": "50"},
)

audit_records = Table(
    "audit_records",
    metadata,
    words("tenant_id", primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    words("request_id"),
    words("sha256"),
    # The very bytes that were hashed.
    words("body"),
    UniqueConstraint("request_id", "tenant_id"),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    words("tenant_id", primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    # Hash of the checkpoint before: no two follow the same one.
    words("previous"),
    words("jws"),
    # Roots of the full subtrees: what the next checkpoint goes on from.
    Column("peaks", LargeBinary, nullable=False),
    made(),
    UniqueConstraint("tenant_id", "previous"),
)

violations = Table(
    "violations",
    metadata,
    serial(),
    words("tenant_id"),
    words("request_id"),
    words("key_id"),
    words("model"),
    words("type"),
    words("severity"),
    Column("packs", ARRAY(Text), nullable=False),
    words("outcome"),
    words("rule"),
    words("direction"),
    words("context"),
    moment("create_time"),
    Index(None, "tenant_id", "create_time", "id"),
)

alerts = Table(
    "alerts",
    metadata,
    serial(),
    words("kind"),
    words("tenant_id"),
    words("severity"),
    words("title"),
    words("text"),
    words("fingerprint"),
    Column("planned", Boolean, nullable=False, server_default="false"),
    made(),
    Index("ix_alerts_unplanned", "id", postgresql_where=text("NOT planned")),
    Index(None, "fingerprint"),
    Index(None, "create_time"),
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    serial(),
    Column("alert_id", BigInteger, ForeignKey("alerts.id", ondelete="CASCADE"), nullable=False),
    words("channel"),
    words("fingerprint"),
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
    serial(),
    words("tenant_id"),
    Column("wrapped", LargeBinary, nullable=False),
    made(),
    UniqueConstraint("tenant_id"),
)

audit_contents = Table(
    "audit_contents",
    metadata,
    words("tenant_id", primary_key=True),
    words("request_id", primary_key=True),
    # No foreign key: whoever destroys a key need not look for what it opened.
    Column("key_id", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    made(),
    Index(None, "tenant_id", "create_time"),
)
