"""Who gets money when several ask at once: SQL that holding and settling share.

A tenant's money moves only under the lock of the tenant's row. A transaction takes it in a statement of its own, first
and in order of tenant: what the next statement sees is then final, and nothing deadlocks. None waits for the disk: the
lock is held for the time of a statement and not for that of a disk write, during which nobody could reserve.
"""

from __future__ import annotations

LOCK = """
SELECT set_config('synchronous_commit', 'off', true)
FROM (SELECT id FROM tenants WHERE id = ANY(%(tenant_ids)s) ORDER BY id FOR NO KEY UPDATE) AS locked
"""

MATCHES = """
budget.tenant_id = asked.tenant_id AND budget.team_id = ANY(ARRAY['', asked.team_id])
    AND budget.key_id = ANY(ARRAY['', asked.key_id] || asked.budget_key_ids)
"""
"""Whether a budget is one that a request counts for: its tenant's, its team's, its key's or that of a key before it."""


def asked_by_keys(table: str) -> str:
    """The rows of a table as `asked`, each with the keys whose budgets its own key goes on with."""
    return f"""(
        SELECT each.*, keys.budget_key_ids FROM {table} AS each
        LEFT JOIN LATERAL (SELECT * FROM keys k WHERE k.id = each.key_id LIMIT 1) AS keys
            ON keys.tenant_id = each.tenant_id
    ) AS asked"""  # noqa: S608 - made of constants


BUDGETS = f"""
CROSS JOIN LATERAL (
    -- A fence, so that each request looks its budgets up and none reads all budgets there are.
    SELECT * FROM budgets_now AS budget WHERE {MATCHES} OFFSET 0
) AS budget
"""  # noqa: S608 - made of constants
"""Joins the budgets that each request of `asked` counts for."""

GRANTED = """
hard AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY id) AS place
    FROM (SELECT DISTINCT tenant_id, id, limit_micros, left_micros FROM matched WHERE NOT soft) AS each
),
wish AS MATERIALIZED (
    SELECT wanted.*, row_number() OVER (PARTITION BY tenant_id ORDER BY ordinal) AS turn,
        ARRAY(
            SELECT place FROM matched JOIN hard USING (tenant_id, id) WHERE matched.ordinal = wanted.ordinal
        ) AS places
    FROM wanted
),
granted AS (
    SELECT tenant_id, CAST(0 AS bigint) AS turn, -1 AS ordinal, CAST('{}' AS bigint[]) AS places,
        CAST(0 AS bigint) AS granted_micros, true AS fits,
        ARRAY(SELECT left_micros FROM hard WHERE hard.tenant_id = wish.tenant_id ORDER BY place) AS lefts
    FROM wish WHERE turn = 1
    UNION ALL
    SELECT tenant_id, wish.turn, wish.ordinal, wish.places, given.micros, whole.fits,
        ARRAY(
            SELECT amount - CASE WHEN place = ANY(wish.places) THEN given.micros ELSE 0 END
            FROM unnest(lefts) WITH ORDINALITY AS line(amount, place) ORDER BY place
        )
    FROM granted JOIN wish USING (tenant_id)
    CROSS JOIN LATERAL (SELECT min(lefts[place]) AS least_left FROM unnest(wish.places) AS place) AS tightest
    CROSS JOIN LATERAL (SELECT coalesce(amount_micros <= least_left, true) AS fits) AS whole
    CROSS JOIN LATERAL (
        SELECT CASE WHEN whole.fits THEN amount_micros WHEN partly THEN greatest(0, least_left) ELSE 0 END AS micros
    ) AS given
    WHERE wish.turn = granted.turn + 1
)
"""
"""Serves each tenant's wishes one after the other, from every hard budget they count for or from none.

Needs `matched` (ordinal, tenant_id, id, soft, limit_micros, left_micros) and `wanted` (ordinal, tenant_id,
amount_micros, partly: whether less than all is of use).
"""
