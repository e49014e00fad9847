"""Billing: ledger row, counters and the end of the reservation in one statement over many requests.

The statement commits without waiting for the disk (`relaxed`), and a second one waits: so the budget rows are locked
for the time of a statement and not for that of a disk write, during which nobody could reserve from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from services.billing.database.wire import Wire
from services.billing.reservations import Settled, Settlement
from services.billing.tenants.tenant import tenant_unknown

_SETTLE = """
WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
budget AS MATERIALIZED (
    SELECT tenant_id, reserved_micros,
        CASE WHEN period_start < date_trunc('month', now(), 'UTC') THEN 0 ELSE spent_micros END AS spent_micros,
        greatest(period_start, date_trunc('month', now(), 'UTC')) AS period_start
    FROM budgets WHERE tenant_id = ANY(%(tenant_ids)s) ORDER BY tenant_id FOR UPDATE
),
asked AS MATERIALIZED (
    SELECT settlement.*, budget.period_start, held.place AS held_at
    FROM jsonb_to_recordset(%(settlements)s) AS settlement(
        ordinal int, tenant_id text, request_id text, key_id text, model text, deployment text, provider text,
        input_tokens int, cached_input_tokens int, cache_write_tokens int, output_tokens int, reasoning_tokens int,
        estimated boolean, cost_micros bigint, currency_code text, finish_reason text)
    LEFT JOIN budget USING (tenant_id)
    LEFT JOIN LATERAL (
        SELECT r.ctid AS place FROM reservations r
        WHERE r.tenant_id = settlement.tenant_id AND r.request_id = settlement.request_id LIMIT 1
    ) AS held ON true
),
booked AS (
    INSERT INTO ledger (tenant_id, request_id, key_id, model, deployment, provider, cache_status, input_tokens,
        cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_micros, saved_micros,
        currency_code, finish_reason, create_time)
    SELECT tenant_id, request_id, key_id, model, deployment, provider, 'miss', input_tokens, cached_input_tokens,
        cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_micros, 0, currency_code, finish_reason,
        greatest(now(), period_start)
    FROM asked WHERE period_start IS NOT NULL ORDER BY ordinal
    ON CONFLICT (request_id, tenant_id) DO NOTHING
    RETURNING tenant_id, request_id, cost_micros
),
released AS (
    DELETE FROM reservations WHERE ctid = ANY(ARRAY(SELECT held_at FROM asked WHERE held_at IS NOT NULL))
    RETURNING tenant_id, amount_micros
),
change AS (
    SELECT tenant_id, sum(spent)::bigint AS spent, sum(freed)::bigint AS freed
    FROM (
        SELECT tenant_id, cost_micros AS spent, 0 AS freed FROM booked
        UNION ALL
        SELECT tenant_id, 0, amount_micros FROM released
    ) AS parts
    GROUP BY tenant_id
),
counted AS (
    UPDATE budgets
    SET spent_micros = budget.spent_micros + change.spent, reserved_micros = budget.reserved_micros - change.freed,
        period_start = budget.period_start
    FROM budget JOIN change USING (tenant_id)
    WHERE budgets.tenant_id = budget.tenant_id
)
SELECT ordinal, asked.period_start IS NOT NULL AS budget_known,
    booked.request_id IS NOT NULL AND 1 = row_number() OVER (PARTITION BY tenant_id, request_id ORDER BY ordinal)
        AS first
FROM relaxed CROSS JOIN asked LEFT JOIN booked USING (tenant_id, request_id)
ORDER BY ordinal
"""

_FLUSH = "SELECT pg_logical_emit_message(true, 'llmmesh', '')"
"""An empty transaction whose commit waits until the log, everything committed before it included, is on disk."""

_BILLED = """
SELECT ledger.request_id, ledger.tenant_id, ledger.cost_micros
FROM jsonb_to_recordset(%(settlements)s) AS settlement(tenant_id text, request_id text)
-- An expression, so that only the index by request id can serve.
JOIN ledger ON ledger.request_id = settlement.request_id AND ledger.tenant_id || '' = settlement.tenant_id
"""


class SettlementStore:
    """Writes what was used."""

    def __init__(self, wire: Wire, flush_wire: Wire) -> None:
        self._wire = wire
        self._flush_wire = flush_wire

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled | Exception]:
        """Bill each request once; for one billed before, say what was billed then.

        What this wrote is on disk only when a `flush` that began after it has ended.
        """
        asked = [_row(ordinal, settlement) for ordinal, settlement in enumerate(settlements)]
        parameters = {
            "tenant_ids": list({settlement.lease.tenant_id for settlement in settlements}),
            "settlements": Jsonb(asked, orjson.dumps),
        }
        rows = await self._wire.fetch("settle", _SETTLE, parameters)
        repeated = [asked[row["ordinal"]] for row in rows if row["budget_known"] and not row["first"]]
        billed = await self._billed(repeated) if repeated else {}
        return [_answer(row, settlement, billed) for row, settlement in zip(rows, settlements, strict=True)]

    async def flush(self, waiting: Sequence[None]) -> Sequence[None]:
        """Put everything settled so far on disk, for everyone who is waiting for it."""
        await self._flush_wire.fetch("flush", _FLUSH, {})
        return waiting

    async def _billed(self, asked: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
        """What was billed before, by tenant and request id."""
        rows = await self._wire.fetch("billed", _BILLED, {"settlements": Jsonb(asked, orjson.dumps)})
        return {(row["tenant_id"], row["request_id"]): row["cost_micros"] for row in rows}


def _answer(row: DictRow, settlement: Settlement, billed: Mapping[tuple[str, str], int]) -> Settled | Exception:
    if not row["budget_known"]:
        return tenant_unknown(settlement.lease.tenant_id)
    if row["first"]:
        return Settled(settlement.cost_micros, first=True)
    return Settled(billed[settlement.lease.tenant_id, settlement.lease.request_id], first=False)


def _row(ordinal: int, settlement: Settlement) -> dict[str, Any]:
    usage = settlement.usage
    return {
        "ordinal": ordinal,
        "tenant_id": settlement.lease.tenant_id,
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
        "estimated": usage.estimated,
        "cost_micros": settlement.cost_micros,
        "currency_code": settlement.lease.currency_code,
        "finish_reason": settlement.finish_reason,
    }
