"""Billing: ledger row, counters and the end of the reservation in one statement over many requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import RowMapping, text

from services.billing.database.engine import Database
from services.billing.reservations import Settled, Settlement, tenant_unknown

_SETTLE = text("""
WITH asked AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:settlements AS jsonb)) AS settlement(
        ordinal int, tenant_id text, request_id text, key_id text, model text, deployment text, provider text,
        input_tokens int, cached_input_tokens int, cache_write_tokens int, output_tokens int, reasoning_tokens int,
        estimated boolean, cost_micros bigint, currency_code text, finish_reason text)
),
budget AS MATERIALIZED (
    SELECT tenant_id, reserved_micros,
        CASE WHEN period_start < date_trunc('month', now(), 'UTC') THEN 0 ELSE spent_micros END AS spent_micros,
        greatest(period_start, date_trunc('month', now(), 'UTC')) AS period_start
    FROM budgets WHERE tenant_id IN (SELECT tenant_id FROM asked) ORDER BY tenant_id FOR UPDATE
),
booked AS (
    INSERT INTO ledger (tenant_id, request_id, key_id, model, deployment, provider, cache_status, input_tokens,
        cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_micros, saved_micros,
        currency_code, finish_reason, create_time)
    SELECT tenant_id, request_id, key_id, model, deployment, provider, 'miss', input_tokens, cached_input_tokens,
        cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_micros, 0, currency_code, finish_reason,
        greatest(now(), budget.period_start)
    FROM asked JOIN budget USING (tenant_id) ORDER BY ordinal
    ON CONFLICT (tenant_id, request_id) DO NOTHING
    RETURNING tenant_id, request_id, cost_micros
),
released AS (
    DELETE FROM reservations r USING asked JOIN budget USING (tenant_id)
    WHERE r.tenant_id = asked.tenant_id AND r.request_id = asked.request_id
    RETURNING r.tenant_id, r.amount_micros
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
SELECT budget.tenant_id IS NOT NULL AS budget_known,
    booked.request_id IS NOT NULL AND 1 = row_number() OVER (PARTITION BY tenant_id, request_id ORDER BY ordinal)
        AS first,
    coalesce(booked.cost_micros, ledger.cost_micros) AS cost_micros
FROM asked
LEFT JOIN budget USING (tenant_id)
LEFT JOIN booked USING (tenant_id, request_id)
LEFT JOIN ledger USING (tenant_id, request_id)
ORDER BY ordinal
""")


class SettlementStore:
    """Writes what was used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled | Exception]:
        """Bill each request once; for one billed before, say what was billed then.

        Everything is on disk when this returns.
        """
        asked = [_parameters(ordinal, settlement) for ordinal, settlement in enumerate(settlements)]
        rows = await self._database.fetch("settle", _SETTLE, {"settlements": orjson.dumps(asked).decode()})
        answers = [_answer(row, settlement) for row, settlement in zip(rows, settlements, strict=True)]
        # Another replica billed it between our snapshot and our lock: now its row can be seen.
        overtaken = [index for index, row in enumerate(rows) if row["budget_known"] and row["cost_micros"] is None]
        if overtaken:
            again = await self.settle([settlements[index] for index in overtaken])
            for index, answer in zip(overtaken, again, strict=True):
                answers[index] = answer
        return answers


def _answer(row: RowMapping, settlement: Settlement) -> Settled | Exception:
    if not row["budget_known"]:
        return tenant_unknown(settlement.lease.tenant_id)
    return Settled(row["cost_micros"], row["first"])


def _parameters(ordinal: int, settlement: Settlement) -> dict[str, Any]:
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
