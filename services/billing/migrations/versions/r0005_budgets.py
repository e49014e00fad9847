"""Any number of budgets per tenant, team and key; what is used beyond them; teams and tags in the ledger."""

from alembic import op

revision = "0005_budgets"
down_revision = "0004_compliance"

_TENANTS = """
ALTER TABLE tenants ADD currency_code text;
UPDATE tenants SET currency_code = budgets.currency_code FROM budgets WHERE tenant_id = tenants.id;
ALTER TABLE tenants ALTER currency_code SET NOT NULL;
ALTER TABLE keys ADD team_id text NOT NULL DEFAULT '', ADD tags text[] NOT NULL DEFAULT '{}';
ALTER TABLE keys ALTER team_id DROP DEFAULT, ALTER tags DROP DEFAULT;
"""

_BUDGETS = """
ALTER TABLE budgets
    DROP currency_code,
    DROP CONSTRAINT pk_budgets,
    ADD id text NOT NULL DEFAULT 'default',
    ADD team_id text NOT NULL DEFAULT '',
    ADD key_id text NOT NULL DEFAULT '',
    ADD cycle text NOT NULL DEFAULT 'month',
    ADD rolling_seconds bigint NOT NULL DEFAULT 0
        CONSTRAINT ck_budgets_rolling CHECK ((cycle = 'rolling') = (rolling_seconds > 0)),
    ADD time_zone text NOT NULL DEFAULT 'UTC',
    ADD soft boolean NOT NULL DEFAULT false,
    ADD alert_percents integer[] NOT NULL DEFAULT '{50,80,100}',
    ADD alerted_percent integer NOT NULL DEFAULT 0,
    ADD version integer NOT NULL DEFAULT 1,
    ADD CONSTRAINT pk_budgets PRIMARY KEY (tenant_id, id);
ALTER TABLE budgets
    ALTER id DROP DEFAULT, ALTER team_id DROP DEFAULT, ALTER key_id DROP DEFAULT, ALTER cycle DROP DEFAULT,
    ALTER rolling_seconds DROP DEFAULT, ALTER time_zone DROP DEFAULT, ALTER soft DROP DEFAULT,
    ALTER alert_percents DROP DEFAULT, ALTER alerted_percent DROP DEFAULT, ALTER version DROP DEFAULT;
CREATE INDEX ix_budgets_tenant_id_team_id_key_id ON budgets (tenant_id, team_id, key_id);
CREATE VIEW budgets_now AS
SELECT tenant_id, id, team_id, key_id, cycle, rolling_seconds, time_zone, soft, alert_percents, alerted_percent,
    version, limit_micros, reserved_micros,
    CASE WHEN stored.period_start < period.start THEN 0 ELSE spent_micros END AS spent_micros,
    period.start AS period_start
FROM budgets AS stored CROSS JOIN LATERAL (
    -- A clock that steps back does not bring a past period back.
    SELECT greatest(
        period_start, CASE WHEN cycle IN ('month', 'quarter') THEN date_trunc(cycle, now(), time_zone) END
    ) AS start
) AS period;
CREATE TABLE budget_events (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_budget_events PRIMARY KEY,
    tenant_id text NOT NULL CONSTRAINT fk_budget_events_tenant_id REFERENCES tenants,
    budget_id text NOT NULL,
    percent integer NOT NULL,
    spent_micros bigint NOT NULL CONSTRAINT ck_budget_events_spent_micros CHECK (spent_micros >= 0),
    limit_micros bigint NOT NULL CONSTRAINT ck_budget_events_limit_micros CHECK (limit_micros >= 0),
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_budget_events_tenant_id_create_time_id ON budget_events (tenant_id, create_time, id);
"""

_BOOKS = """
ALTER TABLE reservations ADD team_id text NOT NULL DEFAULT '';
ALTER TABLE reservations ALTER team_id DROP DEFAULT;
ALTER TABLE ledger
    ADD team_id text NOT NULL DEFAULT '',
    ADD tags text[] NOT NULL DEFAULT '{}',
    ADD overrun_micros bigint NOT NULL DEFAULT 0 CONSTRAINT ck_ledger_overrun_micros CHECK (overrun_micros >= 0);
"""


def upgrade() -> None:
    """Make a tenant's budget its first of many."""
    for ddl in (_TENANTS, _BUDGETS, _BOOKS):
        op.execute(ddl)
