"""What billing does by itself: lapsed holds, thresholds, old rows, the ledger's months and sums."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

from meshkit.errors import DependencyUnavailable
from meshkit.log import get_logger
from services.billing.config import BillingConfig
from services.billing.database.alerts import AlertStore
from services.billing.database.budgets import BudgetUpkeep
from services.billing.database.contents import ContentStore
from services.billing.database.engine import Database
from services.billing.database.ledger_months import LedgerMonths
from services.billing.database.repeats import RepeatStore
from services.billing.database.reservations import ReservationStore
from services.billing.database.rollups import Rollup
from services.billing.database.violations import ViolationStore
from services.billing.metrics import BUDGET_EVENTS, LAPSED

log = get_logger()


class Upkeep:
    """Every replica does it; what one has done the others find done."""

    def __init__(
        self,
        config: BillingConfig,
        database: Database,
        *,
        reservations: ReservationStore,
        budgets: BudgetUpkeep,
        rollup: Rollup,
    ) -> None:
        self._config = config
        self._reservations = reservations
        self._budgets = budgets
        self._rollup = rollup
        self._violations = ViolationStore(database)
        self._alerts = AlertStore(database)
        self._contents = ContentStore(database)
        self._repeats = RepeatStore(database)
        self._months = LedgerMonths(database)

    async def sweep(self) -> NoReturn:
        """Let go, announce, forget and prepare, again and again; what takes too long holds up nothing else."""
        while True:
            await asyncio.sleep(self._config.sweep_seconds)
            for name, step in self._steps.items():
                try:
                    await step()
                except DependencyUnavailable:
                    log.warning("sweep_postponed", step=name)

    @property
    def _steps(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        days = self._config.violation_days
        return {
            "reservations": self._let_go,
            "violations": lambda: self._violations.sweep(days),
            "budgets": self._announce,
            "months": self._keep_months,
            "alerts": lambda: self._alerts.sweep(self._config.alert_days),
            "contents": lambda: self._contents.sweep(days),
            "repeats": self._repeats.sweep,
        }

    async def _let_go(self) -> None:
        LAPSED.inc(await self._reservations.sweep())

    async def _announce(self) -> None:
        BUDGET_EVENTS.inc(await self._budgets.run())

    async def roll_up(self) -> NoReturn:
        """Sum up what is new in the ledger, again and again."""
        while True:
            await asyncio.sleep(self._config.rollup_seconds)
            try:
                await self._rollup.run()
            except DependencyUnavailable:
                log.warning("rollup_postponed")

    async def _keep_months(self) -> None:
        await self._months.prepare()
        if self._config.ledger_months:
            dropped = await self._months.drop(kept=self._config.ledger_months)
            if dropped:
                log.warning("ledger_months_dropped", partitions=dropped)
