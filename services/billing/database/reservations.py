"""Holding and letting go: each a single statement over many reservations at once.

Every statement locks the budget rows first, in order of tenant, and so never deadlocks with another. `now()` of a
statement that waited for a lock lies before what the lock's last holder did; therefore a budget's period never moves
back.

None waits for the disk (`relaxed`, which holds for its own transaction alone): a hold lost in a crash would have lapsed
anyway, and settling does not need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from psycopg.types.json import Jsonb
from sqlalchemy import text

from services.billing.database.engine import Database
from services.billing.database.wire import Wire
from services.billing.reservations import Held, Hold, Lease

_HOLD = """
WITH RECURSIVE relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
budget AS MATERIALIZED (
    SELECT tenant_id, limit_micros, reserved_micros,
        CASE WHEN period_start < date_trunc('month', now(), 'UTC') THEN 0 ELSE spent_micros END AS spent_micros,
        greatest(period_start, date_trunc('month', now(), 'UTC')) AS period_start
    FROM budgets WHERE tenant_id = ANY(%(tenant_ids)s) ORDER BY tenant_id FOR UPDATE
),
asked AS MATERIALIZED (
    SELECT hold.*, standing.fingerprint AS standing_fingerprint, standing.amount_micros AS standing_micros,
        standing.priced_at AS standing_priced_at, standing.expire_time AS standing_expire_time,
        billed.id IS NOT NULL AS billed,
        count(*) FILTER (WHERE standing.fingerprint IS NULL AND billed.id IS NULL)
            OVER (PARTITION BY hold.tenant_id ORDER BY hold.ordinal) AS turn
    FROM jsonb_to_recordset(%(holds)s) AS hold(
        ordinal int, tenant_id text, key_id text, request_id text, model text, fingerprint text,
        amount_micros bigint, priced_at timestamptz)
    LEFT JOIN LATERAL (
        SELECT * FROM reservations r WHERE r.tenant_id = hold.tenant_id AND r.request_id = hold.request_id LIMIT 1
    ) AS standing ON true
    LEFT JOIN LATERAL (
        -- An expression, so that only the index by request id can serve.
        SELECT l.id FROM ledger l WHERE l.request_id = hold.request_id AND l.tenant_id || '' = hold.tenant_id LIMIT 1
    ) AS billed ON true
),
fresh AS MATERIALIZED (SELECT * FROM asked WHERE standing_fingerprint IS NULL AND NOT billed),
served AS (
    SELECT tenant_id, CAST(0 AS bigint) AS turn, limit_micros - spent_micros - reserved_micros AS left_micros,
        false AS fits
    FROM budget
    UNION ALL
    SELECT tenant_id, fresh.turn,
        left_micros - CASE WHEN fresh.amount_micros <= left_micros THEN fresh.amount_micros ELSE 0 END,
        fresh.amount_micros <= left_micros
    FROM served JOIN fresh USING (tenant_id) WHERE fresh.turn = served.turn + 1
),
held AS (
    INSERT INTO reservations
        (tenant_id, request_id, key_id, model, fingerprint, amount_micros, priced_at, expire_time)
    SELECT tenant_id, request_id, key_id, model, fingerprint, amount_micros, priced_at,
        clock_timestamp() + make_interval(secs => %(lease_seconds)s)
    FROM fresh JOIN served USING (tenant_id, turn) WHERE fits
    ON CONFLICT (tenant_id, request_id) DO NOTHING
    RETURNING tenant_id, request_id, fingerprint, amount_micros, priced_at, expire_time
),
counted AS (
    UPDATE budgets
    SET reserved_micros = budget.reserved_micros + added.micros, spent_micros = budget.spent_micros,
        period_start = budget.period_start
    FROM budget JOIN (SELECT tenant_id, sum(amount_micros)::bigint AS micros FROM held GROUP BY tenant_id) AS added
        USING (tenant_id)
    WHERE budgets.tenant_id = budget.tenant_id
)
SELECT budget.tenant_id IS NOT NULL AS budget_known,
    asked.standing_fingerprint IS NULL AND NOT asked.billed AND coalesce(served.fits, false)
        AND held.request_id IS NULL AS overtaken,
    coalesce(budget.limit_micros, 0) AS limit_micros,
    coalesce(served.left_micros, 0) AS left_micros,
    asked.billed,
    coalesce(held.fingerprint, asked.standing_fingerprint) AS fingerprint,
    coalesce(held.amount_micros, asked.standing_micros, 0) AS amount_micros,
    coalesce(held.priced_at, asked.standing_priced_at) AS priced_at,
    coalesce(held.expire_time, asked.standing_expire_time) AS expire_time
FROM relaxed CROSS JOIN asked
LEFT JOIN budget USING (tenant_id)
LEFT JOIN served USING (tenant_id, turn)
LEFT JOIN held USING (tenant_id, request_id)
ORDER BY ordinal
"""

_RELEASE = text("""
WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
budget AS MATERIALIZED (
    SELECT tenant_id, reserved_micros FROM budgets WHERE tenant_id = :tenant_id FOR UPDATE
),
released AS (
    DELETE FROM reservations r USING budget
    WHERE r.tenant_id = budget.tenant_id AND r.request_id = :request_id
    RETURNING r.tenant_id, r.amount_micros
),
counted AS (
    UPDATE budgets SET reserved_micros = budget.reserved_micros - released.amount_micros
    FROM budget JOIN released USING (tenant_id) WHERE budgets.tenant_id = budget.tenant_id
)
SELECT count(*) AS released FROM relaxed, released
""")

_SWEEP = text("""
WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
budget AS MATERIALIZED (
    SELECT tenant_id, reserved_micros FROM budgets
    WHERE tenant_id IN (SELECT tenant_id FROM reservations WHERE expire_time <= now())
    ORDER BY tenant_id FOR UPDATE SKIP LOCKED
),
lapsed AS (
    DELETE FROM reservations r USING budget WHERE r.tenant_id = budget.tenant_id AND r.expire_time <= now()
    RETURNING r.tenant_id, r.amount_micros
),
counted AS (
    UPDATE budgets SET reserved_micros = budget.reserved_micros - gone.micros
    FROM budget JOIN (SELECT tenant_id, sum(amount_micros)::bigint AS micros FROM lapsed GROUP BY tenant_id) AS gone
        USING (tenant_id)
    WHERE budgets.tenant_id = budget.tenant_id
)
SELECT count(*) AS lapsed FROM relaxed, lapsed
""")


class ReservationStore:
    """Reservations in Postgres."""

    def __init__(self, database: Database, wire: Wire, *, lease_seconds: float) -> None:
        self._database = database
        self._wire = wire
        self._lease_seconds = lease_seconds

    async def hold(self, holds: Sequence[Hold]) -> list[Held]:
        """Hold as many of `holds`, in their order, as the budgets allow; one answer each.

        A row exists exactly as long as its amount is counted in the budget.
        """
        parameters = {
            "tenant_ids": list({hold.tenant_id for hold in holds}),
            "holds": Jsonb([_row(ordinal, hold) for ordinal, hold in enumerate(holds)], orjson.dumps),
            "lease_seconds": self._lease_seconds,
        }
        rows = await self._wire.fetch("hold", _HOLD, parameters)
        # Another replica made the same hold between our snapshot and our lock: now it can be seen.
        overtaken = [index for index, row in enumerate(rows) if row.pop("overtaken")]
        answers = [Held(**row) for row in rows]
        if overtaken:
            again = await self.hold([holds[index] for index in overtaken])
            for index, answer in zip(overtaken, again, strict=True):
                answers[index] = answer
        return answers

    async def release(self, lease: Lease) -> None:
        """Let one reservation go, if it stands."""
        parameters = {"tenant_id": lease.tenant_id, "request_id": lease.request_id}
        await self._database.fetch("release", _RELEASE, parameters)

    async def sweep(self) -> int:
        """Let lapsed reservations go; says how many. Tenants another replica is busy with are left to it."""
        rows = await self._database.fetch("sweep", _SWEEP)
        return int(rows[0]["lapsed"])


def _row(ordinal: int, hold: Hold) -> dict[str, Any]:
    return {
        "ordinal": ordinal,
        "tenant_id": hold.tenant_id,
        "key_id": hold.key_id,
        "request_id": hold.request_id,
        "model": hold.model,
        "fingerprint": hold.fingerprint,
        "amount_micros": hold.amount_micros,
        "priced_at": hold.priced_at,
    }
