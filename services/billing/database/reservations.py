"""Holding and letting go: each a single statement over many reservations at once.

None waits for the disk: a hold lost in a crash would have lapsed anyway, and settling does not need it. What is looked
up for each is fenced with LIMIT 1: a plan made while a table is small would else read all of it, and be kept for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from psycopg.types.json import Jsonb

from services.billing.database.grants import BUDGETS, GRANTED, LOCK, MATCHES, asked_by_keys
from services.billing.database.wire import Wire
from services.billing.lease import Lease
from services.billing.reservations import Held, Hold

_HOLD = f"""
WITH RECURSIVE asked AS MATERIALIZED (
    SELECT hold.*, coalesce(keys.team_id, '') AS team_id, keys.budget_key_ids,
        standing.fingerprint AS standing_fingerprint,
        standing.amount_micros AS standing_micros, standing.priced_at AS standing_priced_at,
        standing.expire_time AS standing_expire_time, standing.team_id AS standing_team_id,
        billed.request_id IS NOT NULL AS billed,
        billed.request_id IS NULL
            AND (standing.fingerprint IS NULL OR hold.extends AND hold.amount_micros > standing.amount_micros)
            AND 1 = row_number() OVER (PARTITION BY hold.tenant_id, hold.request_id ORDER BY ordinal) AS fresh
    FROM jsonb_to_recordset(%(holds)s) AS hold(
        ordinal int, tenant_id text, key_id text, request_id text, model text, fingerprint text,
        amount_micros bigint, priced_at timestamptz, extends boolean)
    LEFT JOIN LATERAL (SELECT * FROM keys k WHERE k.id = hold.key_id LIMIT 1) AS keys ON keys.tenant_id = hold.tenant_id
    LEFT JOIN LATERAL (
        SELECT * FROM reservations r WHERE r.tenant_id = hold.tenant_id AND r.request_id = hold.request_id LIMIT 1
    ) AS standing ON true
    LEFT JOIN LATERAL (
        SELECT * FROM billed_requests b
        WHERE b.request_id = hold.request_id AND b.tenant_id = hold.tenant_id LIMIT 1
    ) AS billed ON true
),
wanted AS MATERIALIZED (
    SELECT ordinal, tenant_id, amount_micros - coalesce(standing_micros, 0) AS amount_micros, false AS partly
    FROM asked WHERE fresh
),
matched AS MATERIALIZED (
    SELECT ordinal, budget.*, limit_micros - spent_micros - reserved_micros AS left_micros
    FROM asked {BUDGETS} WHERE fresh
),
{GRANTED},
held AS (
    INSERT INTO reservations
        (tenant_id, request_id, key_id, team_id, model, fingerprint, amount_micros, priced_at, expire_time)
    SELECT tenant_id, request_id, key_id, team_id, model, fingerprint, asked.amount_micros, priced_at,
        clock_timestamp() + make_interval(secs => %(lease_seconds)s)
    FROM asked JOIN granted USING (tenant_id, ordinal) WHERE fits
    ON CONFLICT (tenant_id, request_id)
        DO UPDATE SET amount_micros = excluded.amount_micros, expire_time = excluded.expire_time
    RETURNING tenant_id, request_id, team_id, fingerprint, amount_micros, priced_at, expire_time
),
counted AS (
    UPDATE budgets
    SET reserved_micros = reserved_micros + added.micros, spent_micros = added.spent_micros,
        period_start = added.period_start
    FROM (
        SELECT tenant_id, id, spent_micros, period_start, sum(granted_micros)::bigint AS micros
        FROM matched JOIN granted USING (tenant_id, ordinal) WHERE fits
        GROUP BY tenant_id, id, spent_micros, period_start
    ) AS added
    WHERE (budgets.tenant_id, budgets.id) = (added.tenant_id, added.id)
)
SELECT tenants.id IS NOT NULL AS tenant_known, asked.billed,
    coalesce(held.team_id, standing_team_id, asked.team_id) AS team_id,
    coalesce(NOT granted.fits, false) AS refused,
    coalesce(tight.id, '') AS budget_id, coalesce(tight.limit_micros, 0) AS limit_micros,
    coalesce(tight.left_micros, 0) AS left_micros,
    NOT granted.fits AND EXISTS (
        SELECT FROM reservations r WHERE r.tenant_id = asked.tenant_id AND r.expire_time <= clock_timestamp()
    ) AS lapsed,
    coalesce(held.fingerprint, standing_fingerprint) AS fingerprint,
    coalesce(held.amount_micros, standing_micros, 0) AS amount_micros,
    coalesce(held.priced_at, standing_priced_at) AS priced_at,
    coalesce(held.expire_time, standing_expire_time) AS expire_time
FROM asked
LEFT JOIN LATERAL (SELECT id FROM tenants t WHERE t.id = asked.tenant_id LIMIT 1) AS tenants ON true
LEFT JOIN granted USING (tenant_id, ordinal)
LEFT JOIN held USING (tenant_id, request_id)
LEFT JOIN LATERAL (
    SELECT hard.id, hard.limit_micros, granted.lefts[place] AS left_micros
    FROM hard WHERE hard.tenant_id = asked.tenant_id AND place = ANY(granted.places) AND NOT granted.fits
    ORDER BY left_micros LIMIT 1
) AS tight ON true
ORDER BY ordinal
"""  # noqa: S608 - made of constants

_LET_GO = f"""
counted AS (
    UPDATE budgets SET reserved_micros = reserved_micros - freed.micros
    FROM (
        SELECT budget.tenant_id, budget.id, sum(asked.amount_micros)::bigint AS micros
        FROM {asked_by_keys("gone")} JOIN budgets AS budget ON {MATCHES} GROUP BY budget.tenant_id, budget.id
    ) AS freed
    WHERE (budgets.tenant_id, budgets.id) = (freed.tenant_id, freed.id)
)
SELECT count(*) AS gone FROM gone
"""  # noqa: S608 - made of constants

_RELEASE = f"""
WITH gone AS (
    DELETE FROM reservations r USING jsonb_to_recordset(%(leases)s) AS lease(tenant_id text, request_id text)
    WHERE r.tenant_id = lease.tenant_id AND r.request_id = lease.request_id
    RETURNING r.tenant_id, r.team_id, r.key_id, r.amount_micros
),
{_LET_GO}
"""  # noqa: S608 - made of constants

_LAPSED_TENANTS = "SELECT DISTINCT tenant_id FROM reservations WHERE expire_time <= now()"
_SWEEP = f"""
WITH gone AS (
    DELETE FROM reservations r WHERE r.tenant_id = ANY(%(tenant_ids)s) AND r.expire_time <= clock_timestamp()
    RETURNING r.tenant_id, r.team_id, r.key_id, r.amount_micros
),
{_LET_GO}
"""  # noqa: S608 - made of constants


class ReservationStore:
    """Reservations in Postgres."""

    def __init__(self, hold_wire: Wire, release_wire: Wire, sweep_wire: Wire, *, lease_seconds: float) -> None:
        self._hold_wire = hold_wire
        self._release_wire = release_wire
        self._sweep_wire = sweep_wire
        self._lease_seconds = lease_seconds

    async def hold(self, holds: Sequence[Hold]) -> list[Held]:
        """Hold as many of `holds`, in their order, as the budgets allow; one answer each.

        A row exists exactly as long as its amount is counted in every budget it counts for. What has lapsed is let go
        before anybody is refused for it.
        """
        answers = await self._hold(holds)
        stale = [index for index, answer in enumerate(answers) if answer.lapsed]
        if stale:
            await _sweep(self._hold_wire, {holds[index].tenant_id for index in stale})
            again = await self._hold([holds[index] for index in stale])
            for index, answer in zip(stale, again, strict=True):
                answers[index] = answer
        return answers

    async def release(self, leases: Sequence[Lease]) -> Sequence[None]:
        """Let reservations go, those that stand."""
        rows = [{"tenant_id": lease.tenant_id, "request_id": lease.request_id} for lease in leases]
        tenant_ids = list({lease.tenant_id for lease in leases})
        await self._release_wire.fetch(
            "release", LOCK, _RELEASE, tenant_ids=tenant_ids, leases=Jsonb(rows, orjson.dumps)
        )
        return [None] * len(leases)

    async def sweep(self) -> int:
        """Let lapsed reservations go; says how many."""
        rows = await self._sweep_wire.fetch("lapsed_tenants", _LAPSED_TENANTS)
        return await _sweep(self._sweep_wire, {row["tenant_id"] for row in rows}) if rows else 0

    async def _hold(self, holds: Sequence[Hold]) -> list[Held]:
        rows = await self._hold_wire.fetch(
            "hold",
            LOCK,
            _HOLD,
            tenant_ids=list({hold.tenant_id for hold in holds}),
            holds=Jsonb([_row(ordinal, hold) for ordinal, hold in enumerate(holds)], orjson.dumps),
            lease_seconds=self._lease_seconds,
        )
        return [Held(**row) for row in rows]


async def _sweep(wire: Wire, tenant_ids: set[str]) -> int:
    rows = await wire.fetch("sweep", LOCK, _SWEEP, tenant_ids=list(tenant_ids))
    return int(rows[0]["gone"])


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
        "extends": hold.extends,
    }
