"""Billing: ledger row, counters and the end of the reservation in one transaction over many requests.

It commits without waiting for the disk, and a second one, sent along with it, waits: so tenants are locked for the time
of a statement and not for that of a disk write, during which nobody could reserve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from services.billing.database.grants import BUDGETS, GRANTED, LOCK
from services.billing.database.wire import Wire
from services.billing.reservations import Settled, Settlement
from services.billing.tenants.tenant import tenant_unknown

_SETTLE = f"""
WITH RECURSIVE asked AS MATERIALIZED (
    SELECT settlement.*, tenants.id IS NOT NULL AS tenant_known, held.place AS held_at, keys.tags, keys.budget_key_ids,
        least(settlement.cost_micros, coalesce(held.amount_micros, 0)) AS covered_micros,
        coalesce(held.amount_micros, 0) AS held_micros, billed.cost_micros AS billed_micros,
        tenants.id IS NOT NULL AND billed.cost_micros IS NULL
            AND 1 = row_number() OVER (PARTITION BY settlement.tenant_id, settlement.request_id ORDER BY ordinal)
            AS first
    FROM jsonb_to_recordset(%(settlements)s) AS settlement(
        ordinal int, tenant_id text, team_id text, request_id text, key_id text, model text, deployment text,
        provider text, input_tokens int, cached_input_tokens int, cache_write_tokens int, output_tokens int,
        reasoning_tokens int, image_count int, estimated boolean, cost_micros bigint, margin_micros bigint,
        margin_points int, currency_code text, finish_reason text, stop text, priced_at timestamptz, most_micros bigint)
    LEFT JOIN LATERAL (SELECT id FROM tenants t WHERE t.id = settlement.tenant_id LIMIT 1) AS tenants ON true
    LEFT JOIN LATERAL (SELECT * FROM keys k WHERE k.id = settlement.key_id LIMIT 1) AS keys
        ON keys.tenant_id = settlement.tenant_id
    LEFT JOIN LATERAL (
        SELECT r.ctid AS place, r.amount_micros FROM reservations r
        WHERE r.tenant_id = settlement.tenant_id AND r.request_id = settlement.request_id LIMIT 1
    ) AS held ON true
    LEFT JOIN LATERAL (
        SELECT * FROM billed_requests b
        WHERE b.request_id = settlement.request_id AND b.tenant_id = settlement.tenant_id LIMIT 1
    ) AS billed ON true
),
matched AS MATERIALIZED (
    SELECT ordinal, budget.*, limit_micros - spent_micros - reserved_micros
        + (sum(held_micros - covered_micros) OVER (PARTITION BY budget.tenant_id, budget.id))::bigint AS left_micros
    FROM asked {BUDGETS} WHERE first
),
wanted AS MATERIALIZED (
    SELECT ordinal, tenant_id, least(cost_micros, most_micros) - covered_micros AS amount_micros, true AS partly
    FROM asked WHERE first AND least(cost_micros, most_micros) > covered_micros
),
{GRANTED},
charged AS MATERIALIZED (
    SELECT asked.*, covered_micros + coalesce(granted_micros, 0) AS charged_micros,
        greatest(now(), (SELECT max(period_start) FROM matched WHERE matched.tenant_id = asked.tenant_id)) AS booked_at
    FROM asked LEFT JOIN granted USING (tenant_id, ordinal) WHERE first
),
billed AS (
    INSERT INTO billed_requests (tenant_id, request_id, cost_micros)
    SELECT tenant_id, request_id, charged_micros FROM charged
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, request_id, cost_micros
),
booked AS (
    INSERT INTO ledger (tenant_id, team_id, request_id, key_id, tags, model, deployment, provider, cache_status,
        input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, image_count, estimated,
        cost_micros, overrun_micros, margin_micros, margin_points, saved_micros, stopped_micros, currency_code,
        finish_reason, stop, create_time, priced_at, most_micros)
    SELECT tenant_id, team_id, request_id, key_id, coalesce(tags, '{{}}'), model, deployment, provider, 'miss',
        input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, image_count, estimated,
        charged_micros, charged.cost_micros - charged_micros, margin_micros, margin_points, 0,
        CASE WHEN finish_reason = 'content_filter' OR stop = 'repetition' THEN held_micros - covered_micros ELSE 0 END,
        currency_code, finish_reason, stop, booked_at, priced_at, most_micros
    FROM charged JOIN billed USING (tenant_id, request_id) ORDER BY ordinal
),
released AS (
    DELETE FROM reservations WHERE ctid = ANY(ARRAY(SELECT held_at FROM asked WHERE first AND held_at IS NOT NULL))
),
counted AS (
    UPDATE budgets
    SET spent_micros = change.spent_micros + spent, reserved_micros = reserved_micros - freed,
        period_start = change.period_start
    FROM (
        SELECT tenant_id, id, spent_micros, period_start, coalesce(sum(billed.cost_micros), 0)::bigint AS spent,
            sum(held_micros)::bigint AS freed
        FROM matched JOIN charged USING (tenant_id, ordinal) LEFT JOIN billed USING (tenant_id, request_id)
        GROUP BY tenant_id, id, spent_micros, period_start
    ) AS change
    WHERE (budgets.tenant_id, budgets.id) = (change.tenant_id, change.id)
)
SELECT tenant_known, first AND billed.cost_micros IS NOT NULL AS first,
    coalesce(billed.cost_micros, billed_micros, 0) AS cost_micros
FROM asked LEFT JOIN billed USING (tenant_id, request_id)
ORDER BY ordinal
"""  # noqa: S608 - made of constants

_FLUSH = "SELECT pg_logical_emit_message(true, 'llmmesh', '')"
"""An empty transaction whose commit waits until the log, everything committed before it included, is on disk."""


class SettlementStore:
    """Writes what was used."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled | Exception]:
        """Bill each request once; for one billed before, say what was billed then. All is on disk when this returns."""
        rows = await self._wire.fetch(
            "settle",
            LOCK,
            _SETTLE,
            afterwards=_FLUSH,
            tenant_ids=list({settlement.lease.tenant_id for settlement in settlements}),
            settlements=Jsonb([_row(*numbered) for numbered in enumerate(settlements)], orjson.dumps),
        )
        return [_answer(row, settlement) for row, settlement in zip(rows, settlements, strict=True)]


def _answer(row: DictRow, settlement: Settlement) -> Settled | Exception:
    if not row["tenant_known"]:
        return tenant_unknown(settlement.lease.tenant_id)
    return Settled(row["cost_micros"], first=row["first"])


def _row(ordinal: int, settlement: Settlement) -> dict[str, Any]:
    usage = settlement.usage
    return {
        "ordinal": ordinal,
        "tenant_id": settlement.lease.tenant_id,
        "team_id": settlement.lease.team_id,
        "request_id": settlement.lease.request_id,
        "key_id": settlement.lease.key_id,
        "model": settlement.lease.model,
        "deployment": settlement.deployment,
        "provider": settlement.provider,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "image_count": usage.image_count,
        "estimated": usage.estimated,
        "cost_micros": settlement.cost_micros,
        "margin_micros": settlement.margin_micros,
        "margin_points": settlement.lease.margin_points,
        "currency_code": settlement.lease.currency_code,
        "finish_reason": settlement.finish_reason,
        "stop": settlement.stop,
        "priced_at": settlement.lease.priced_at,
        "most_micros": settlement.lease.max_cost_micros,
    }
