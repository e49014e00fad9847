"""Budgets as people see them; requests change them in `reservations` and `settlements`."""

from __future__ import annotations

from sqlalchemy import RowMapping, case, func, select, update

from services.billing.database.engine import Database
from services.billing.database.schema import budgets
from services.billing.ledger import Budget
from services.billing.tenants.tenant import tenant_unknown

_MONTH = func.date_trunc("month", func.now(), "UTC")
_ROLLED = (
    budgets.c.tenant_id,
    budgets.c.limit_micros,
    case((budgets.c.period_start < _MONTH, 0), else_=budgets.c.spent_micros).label("spent_micros"),
    budgets.c.reserved_micros,
    budgets.c.currency_code,
    func.greatest(budgets.c.period_start, _MONTH).label("period_start"),
)
"""A budget as of this month, whether or not a request has rolled it over yet."""

MOST_CURRENCIES_REMEMBERED = 100_000


class BudgetStore:
    """Budgets in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._currencies: dict[str, str] = {}

    async def get(self, tenant_id: str) -> Budget:
        """The budget of a tenant, as of this month.

        Raises:
            ResourceNotFound: If there is no such tenant.
        """
        rows = await self._database.fetch("get_budget", select(*_ROLLED).where(budgets.c.tenant_id == tenant_id))
        return _budget(rows[0] if rows else None, tenant_id)

    async def set_limit(self, tenant_id: str, limit_micros: int) -> Budget:
        """Change the limit; what is spent and held stays, even beyond a lower limit."""
        statement = (
            update(budgets)
            .where(budgets.c.tenant_id == tenant_id)
            .values(limit_micros=limit_micros)
            .returning(*_ROLLED)
        )
        rows = await self._database.fetch("update_budget", statement)
        return _budget(rows[0] if rows else None, tenant_id)

    async def currency_of(self, tenant_id: str) -> str:
        """Currency of a tenant's budget. It never changes, so it is asked for once."""
        known = self._currencies.get(tenant_id)
        if known:
            return known
        currency_code = (await self.get(tenant_id)).currency_code
        if len(self._currencies) >= MOST_CURRENCIES_REMEMBERED:
            self._currencies.clear()
        self._currencies[tenant_id] = currency_code
        return currency_code


def _budget(row: RowMapping | None, tenant_id: str) -> Budget:
    if row is None:
        raise tenant_unknown(tenant_id)
    return Budget(
        tenant_id=row["tenant_id"],
        limit_micros=row["limit_micros"],
        spent_micros=row["spent_micros"],
        reserved_micros=row["reserved_micros"],
        currency_code=row["currency_code"],
        period_start=row["period_start"],
    )
