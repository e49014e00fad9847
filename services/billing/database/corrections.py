"""Correcting rows: added under the lock of the tenant, one at a time, since they are few."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import insert, text
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.corrections import Correction
from services.billing.database.books import billed_requests, ledger
from services.billing.database.budgets import lock_tenant
from services.billing.database.engine import Database
from services.billing.database.ledger import ledger_row
from services.billing.ledger import LedgerRow

_FIND = text("""
SELECT ledger.* FROM billed_requests AS billed JOIN ledger USING (tenant_id, request_id)
WHERE billed.tenant_id = :tenant_id AND billed.request_id = :request_id
    -- The ledger finds rows by their time, which is when the request was billed or, after a clock stepped back, later.
    AND ledger.create_time BETWEEN billed.create_time AND billed.create_time + interval '1 day'
""")
_SCOPE = """
tenant_id = :tenant_id AND team_id IN ('', :team_id) AND key_id = ANY(
    ARRAY['', CAST(:key_id AS text)] || (SELECT budget_key_ids FROM keys WHERE id = :key_id AND tenant_id = :tenant_id))
"""
_GRANT = text(f"""
SELECT greatest(0, least(:wanted_micros, min(limit_micros - spent_micros - reserved_micros))) AS micros
FROM budgets_now WHERE {_SCOPE} AND NOT soft
""")  # noqa: S608 - made of constants
# A transaction that waited for the tenant may have begun before the period that it counts in.
_ADDED_AT = text(f"SELECT greatest(now(), max(period_start)) FROM budgets_now WHERE {_SCOPE}")  # noqa: S608 - as above
_COUNT = text(f"""
UPDATE budgets SET spent_micros = now.spent_micros + :cost_micros, period_start = now.period_start
FROM (SELECT tenant_id, id, spent_micros, period_start FROM budgets_now WHERE {_SCOPE}) AS now
WHERE (budgets.tenant_id, budgets.id) = (now.tenant_id, now.id)
""")  # noqa: S608 - made of constants


class CorrectionStore:
    """Finds estimates, adds corrections."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant_id: str, request_id: str) -> LedgerRow | None:
        """The row of a request, or of a part of it."""
        rows = await self._database.fetch("find_usage", _FIND, {"tenant_id": tenant_id, "request_id": request_id})
        return ledger_row(rows[0]) if rows else None

    async def add(self, correction: Correction) -> LedgerRow:
        """Add the correcting row and count it in the budgets of its request; the row that is there, if one is."""
        estimate = correction.estimate
        async with self._database.transaction("correct_usage") as connection:
            await lock_tenant(connection, estimate.tenant_id)
            await _add(connection, correction)
        found = await self.find(estimate.tenant_id, correction.request_id)
        assert found, "what was just written is gone"
        return found


async def _add(connection: AsyncConnection, correction: Correction) -> None:
    estimate = correction.estimate
    scope = {"tenant_id": estimate.tenant_id, "team_id": estimate.team_id, "key_id": estimate.key_id}
    wanted = {**scope, "wanted_micros": correction.wanted_micros}
    granted = (await connection.execute(_GRANT, wanted)).scalar_one()
    cost, overrun = correction.charge(correction.wanted_micros if granted is None else granted)
    billed = {"tenant_id": estimate.tenant_id, "request_id": correction.request_id, "cost_micros": cost}
    mark = insert_or_skip(billed_requests).values(billed).on_conflict_do_nothing().returning(text("true"))
    if (await connection.execute(mark)).one_or_none() is None:
        return
    added_at = (await connection.execute(_ADDED_AT, scope)).scalar_one()
    row = {**_row(correction, cost, overrun), "create_time": added_at}
    await connection.execute(insert(ledger).values(row))
    await connection.execute(_COUNT, {**scope, "cost_micros": cost})


def _row(correction: Correction, cost_micros: int, overrun_micros: int) -> dict[str, Any]:
    row = replace(
        correction.estimate,
        request_id=correction.request_id,
        usage=correction.usage,
        cost_micros=cost_micros,
        overrun_micros=overrun_micros,
        margin_micros=correction.margin_micros,
        saved_micros=0,
        correction=True,
    )
    values = {**asdict(row), **asdict(row.usage), "tags": list(row.tags)}
    # The row gets a number and a time of its own.
    return {name: value for name, value in values.items() if name not in ("id", "create_time", "usage")}
