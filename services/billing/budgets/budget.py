"""What a budget is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import available_timezones

from meshkit.errors import FieldInvalid, ResourceNotFound

DEFAULT_ID = "default"
"""The budget every tenant has."""
DEFAULT_PERCENTS = (50, 80, 100)
MOST_PERCENTS = 20
LARGEST_PERCENT = 1000
SHORTEST_ROLLING_SECONDS = 60
LONGEST_ROLLING_SECONDS = 366 * 86_400


@dataclass(frozen=True, slots=True)
class NewBudget:
    """A budget to make."""

    tenant_id: str
    limit_micros: int
    id: str = DEFAULT_ID
    team_id: str = ""
    """Empty means every team."""
    key_id: str = ""
    """Empty means every key."""
    cycle: str = "month"
    rolling_seconds: int = 0
    time_zone: str = "UTC"
    soft: bool = False
    """Counts and announces, never refuses."""
    alert_percents: tuple[int, ...] = DEFAULT_PERCENTS

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            FieldInvalid: If the period has no length, or one it does not need; if the time zone is unknown.
        """
        rolls = self.cycle == "rolling"
        if rolls and not SHORTEST_ROLLING_SECONDS <= self.rolling_seconds <= LONGEST_ROLLING_SECONDS:
            raise FieldInvalid("rolling_seconds", "must be between a minute and a year for a rolling budget")
        if not rolls and self.rolling_seconds:
            raise FieldInvalid("rolling_seconds", "must be 0 unless the budget is a rolling one")
        if self.time_zone not in available_timezones():
            raise FieldInvalid("time_zone", "must be the name of an IANA time zone, such as Europe/Moscow")


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget, as of now."""

    tenant_id: str
    id: str
    team_id: str
    key_id: str
    cycle: str
    rolling_seconds: int
    time_zone: str
    soft: bool
    alert_percents: tuple[int, ...]
    limit_micros: int
    spent_micros: int
    reserved_micros: int
    currency_code: str
    period_start: datetime
    version: int
    """Counts changes of its settings."""


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """New settings; None keeps the old."""

    limit_micros: int | None = None
    soft: bool | None = None
    alert_percents: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """A budget reached a threshold."""

    id: int
    budget_id: str
    percent: int
    spent_micros: int
    limit_micros: int
    create_time: datetime


def check_percents(percents: Sequence[int]) -> tuple[int, ...]:
    """Thresholds in order, each once; the usual ones when there are none."""
    if len(percents) > MOST_PERCENTS or not all(0 < percent <= LARGEST_PERCENT for percent in percents):
        raise FieldInvalid("alert_percents", f"must hold at most {MOST_PERCENTS} numbers from 1 to {LARGEST_PERCENT}")
    return tuple(sorted(set(percents))) or DEFAULT_PERCENTS


def budget_unknown(tenant_id: str, budget_id: str) -> ResourceNotFound:
    """The error for a budget that does not exist."""
    return ResourceNotFound(
        f"Tenant {tenant_id!r} has no budget {budget_id!r}.", resource=f"tenants/{tenant_id}/budgets/{budget_id}"
    )
