"""The ledger in partitions by month; which requests are billed; images, and what early stops avoided."""

from alembic import op

revision = "0016_ledger_months"
down_revision = "0015_rate_limits"

_BILLED = """
-- A unique key of a partitioned table holds its partition key: that a request is billed once is kept here.
CREATE TABLE billed_requests (
    request_id text NOT NULL,
    tenant_id text NOT NULL,
    cost_micros bigint NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_billed_requests PRIMARY KEY (request_id, tenant_id)
);
INSERT INTO billed_requests SELECT request_id, tenant_id, cost_micros, create_time FROM ledger;
"""

_LEDGER = """
ALTER TABLE ledger RENAME TO ledger_before;
ALTER TABLE ledger_before DROP CONSTRAINT pk_ledger, DROP CONSTRAINT uq_ledger_request_id_tenant_id;
DROP INDEX ix_ledger_tenant_id_create_time_id, ix_ledger_transaction_id;
CREATE TABLE ledger (
    id bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id text NOT NULL,
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
    team_id text NOT NULL DEFAULT '',
    tags text[] NOT NULL DEFAULT '{}',
    overrun_micros bigint NOT NULL DEFAULT 0 CONSTRAINT ck_ledger_overrun_micros CHECK (overrun_micros >= 0),
    transaction_id bigint NOT NULL DEFAULT CAST(CAST(pg_current_xact_id() AS text) AS bigint),
    image_count integer NOT NULL DEFAULT 0,
    stopped_micros bigint NOT NULL DEFAULT 0 CONSTRAINT ck_ledger_stopped_micros CHECK (stopped_micros >= 0),
    CONSTRAINT pk_ledger PRIMARY KEY (tenant_id, create_time, id)
) PARTITION BY RANGE (create_time);
CREATE INDEX ix_ledger_transaction_id ON ledger (transaction_id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TABLE ledger_rest PARTITION OF ledger DEFAULT;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_rest
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION add_ledger_month(start timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    first timestamptz := date_trunc('month', start, 'UTC');
    next timestamptz := (first AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
    name text := 'ledger_' || to_char(first AT TIME ZONE 'UTC', 'YYYY_MM');
BEGIN
    IF to_regclass(name) IS NOT NULL
        OR EXISTS (SELECT FROM ledger_rest WHERE create_time >= first AND create_time < next)
    THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF ledger FOR VALUES FROM (%L) TO (%L)', name, first, next);
    -- The trigger of the whole does not see what is done to a part.
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
        'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    RETURN true;
END $$;
"""

_ROWS = """
SELECT add_ledger_month(month) FROM (
    SELECT DISTINCT date_trunc('month', create_time, 'UTC') FROM ledger_before
    UNION
    SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead)) AT TIME ZONE 'UTC'
    FROM generate_series(0, 3) AS ahead
) AS months(month);
INSERT INTO ledger OVERRIDING SYSTEM VALUE
SELECT id, tenant_id, request_id, key_id, model, deployment, provider, cache_status, input_tokens, cached_input_tokens,
    cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_micros, saved_micros, currency_code,
    finish_reason, create_time, team_id, tags, overrun_micros, transaction_id
FROM ledger_before;
SELECT setval(pg_get_serial_sequence('ledger', 'id'), coalesce(max(id), 0) + 1, false) FROM ledger_before;
DROP TABLE ledger_before;
"""

_ROLLUPS = """
ALTER TABLE usage_rollups
    ADD image_count bigint NOT NULL DEFAULT 0,
    ADD stopped_micros bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_rollups ALTER image_count DROP DEFAULT, ALTER stopped_micros DROP DEFAULT;
INSERT INTO usage_rollups
SELECT tenant_id, 'whole day', start, '', '', '', '', '', cache_status, '{}', sum(request_count), sum(input_tokens),
    sum(cached_input_tokens), sum(cache_write_tokens), sum(output_tokens), sum(reasoning_tokens), sum(cost_micros),
    sum(saved_micros), sum(overrun_micros), 0, 0
FROM usage_rollups WHERE span = 'day' GROUP BY tenant_id, start, cache_status;
"""


def upgrade() -> None:
    """Rows that are there go to their months as they are."""
    for ddl in (_BILLED, _LEDGER, _ROWS, _ROLLUPS):
        op.execute(ddl)
