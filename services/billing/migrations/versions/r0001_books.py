"""Tenants, keys, budgets, prices, reservations, the ledger and the audit log."""

from alembic import op

revision = "0001"
down_revision = None

_TENANTS = """
CREATE TABLE tenants (
    id text CONSTRAINT pk_tenants PRIMARY KEY,
    display_name text NOT NULL,
    allowed_models text[] NOT NULL,
    allowed_deployments text[] NOT NULL,
    residency text NOT NULL,
    cache text NOT NULL,
    guard_fail_open boolean NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE keys (
    id text CONSTRAINT pk_keys PRIMARY KEY,
    tenant_id text NOT NULL CONSTRAINT fk_keys_tenant_id REFERENCES tenants,
    display_name text NOT NULL,
    roles text[] NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz NOT NULL,
    revoke_time timestamptz
);
CREATE INDEX ix_keys_tenant_id_create_time_id ON keys (tenant_id, create_time, id);
"""

_PRICES = """
CREATE TABLE prices (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_prices PRIMARY KEY,
    deployment text NOT NULL,
    currency_code text NOT NULL,
    input_micros bigint NOT NULL CONSTRAINT ck_prices_input_micros CHECK (input_micros >= 0),
    cached_input_micros bigint NOT NULL CONSTRAINT ck_prices_cached_input_micros CHECK (cached_input_micros >= 0),
    output_micros bigint NOT NULL CONSTRAINT ck_prices_output_micros CHECK (output_micros >= 0),
    effective_time timestamptz NOT NULL,
    CONSTRAINT uq_prices_deployment_effective_time UNIQUE (deployment, effective_time)
);
CREATE TABLE exchange_rates (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_exchange_rates PRIMARY KEY,
    currency_code text NOT NULL,
    rate_micros bigint NOT NULL CONSTRAINT ck_exchange_rates_rate_micros CHECK (rate_micros >= 0),
    effective_time timestamptz NOT NULL,
    CONSTRAINT uq_exchange_rates_currency_code_effective_time UNIQUE (currency_code, effective_time)
);
"""

_BUDGETS = """
CREATE TABLE budgets (
    tenant_id text CONSTRAINT pk_budgets PRIMARY KEY CONSTRAINT fk_budgets_tenant_id REFERENCES tenants,
    currency_code text NOT NULL,
    limit_micros bigint NOT NULL CONSTRAINT ck_budgets_limit_micros CHECK (limit_micros >= 0),
    spent_micros bigint NOT NULL CONSTRAINT ck_budgets_spent_micros CHECK (spent_micros >= 0),
    reserved_micros bigint NOT NULL CONSTRAINT ck_budgets_reserved_micros CHECK (reserved_micros >= 0),
    period_start timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE reservations (
    tenant_id text NOT NULL,
    request_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    fingerprint text NOT NULL,
    amount_micros bigint NOT NULL CONSTRAINT ck_reservations_amount_micros CHECK (amount_micros >= 0),
    priced_at timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    CONSTRAINT pk_reservations PRIMARY KEY (tenant_id, request_id)
);
CREATE INDEX ix_reservations_expire_time ON reservations (expire_time);
"""

_LEDGER = """
CREATE TABLE ledger (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_ledger PRIMARY KEY,
    tenant_id text NOT NULL CONSTRAINT fk_ledger_tenant_id REFERENCES tenants,
    request_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    deployment text NOT NULL,
    provider text NOT NULL,
    cache_status text NOT NULL,
    input_tokens integer NOT NULL,
    cached_input_tokens integer NOT NULL,
    cache_write_tokens integer NOT NULL,
    output_tokens integer NOT NULL,
    reasoning_tokens integer NOT NULL,
    estimated boolean NOT NULL,
    cost_micros bigint NOT NULL CONSTRAINT ck_ledger_cost_micros CHECK (cost_micros >= 0),
    saved_micros bigint NOT NULL CONSTRAINT ck_ledger_saved_micros CHECK (saved_micros >= 0),
    currency_code text NOT NULL,
    finish_reason text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_ledger_request_id_tenant_id UNIQUE (request_id, tenant_id)
);
CREATE INDEX ix_ledger_tenant_id_create_time_id ON ledger (tenant_id, create_time, id);
"""

_AUDIT = """
CREATE TABLE audit_events (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_audit_events PRIMARY KEY,
    tenant_id text NOT NULL,
    request_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    outcome text NOT NULL,
    reason text NOT NULL,
    data_class text NOT NULL,
    guard_rules text[] NOT NULL,
    guard_policy_version text NOT NULL,
    deployment text NOT NULL,
    cache_status text NOT NULL,
    prompt_sha256 text NOT NULL,
    answer_sha256 text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_audit_events_request_id_tenant_id UNIQUE (request_id, tenant_id)
);
CREATE INDEX ix_audit_events_tenant_id_create_time_id ON audit_events (tenant_id, create_time, id);
"""

_APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are only ever added', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
"""
_KEPT_FOR_EVER = ("ledger", "audit_events", "prices", "exchange_rates")

_ANNOUNCEMENTS = """
CREATE FUNCTION announce() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('llmmesh_billing', TG_ARGV[0] || CASE WHEN TG_LEVEL = 'ROW' THEN ' ' || NEW.id ELSE '' END);
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER INSERT OR UPDATE ON tenants FOR EACH ROW EXECUTE FUNCTION announce('tenant');
CREATE TRIGGER announce AFTER UPDATE OF revoke_time ON keys FOR EACH ROW EXECUTE FUNCTION announce('key');
CREATE TRIGGER announce AFTER INSERT ON prices FOR EACH STATEMENT EXECUTE FUNCTION announce('prices');
CREATE TRIGGER announce AFTER INSERT ON exchange_rates FOR EACH STATEMENT EXECUTE FUNCTION announce('prices');
"""


def upgrade() -> None:
    """Make everything."""
    for ddl in (_TENANTS, _PRICES, _BUDGETS, _LEDGER, _AUDIT, _APPEND_ONLY, _ANNOUNCEMENTS):
        op.execute(ddl)
    for table in _KEPT_FOR_EVER:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    """Remove everything."""
    op.execute("DROP TABLE audit_events, ledger, reservations, budgets, exchange_rates, prices, keys, tenants")
    op.execute("DROP FUNCTION announce, refuse_change")
