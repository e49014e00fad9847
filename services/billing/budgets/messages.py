"""Between budgets and their messages."""

from __future__ import annotations

from llmmesh.billing.v1 import billing_pb2, budgets_pb2
from services.billing.budgets.budget import Budget, BudgetChange, BudgetEvent, NewBudget, check_percents
from services.billing.fields import check_id, check_micros, check_text
from services.billing.messages import enum_value, enum_word, timestamp


def new_budget_of(request: budgets_pb2.CreateBudgetRequest) -> NewBudget:
    """A budget to make."""
    cycle = enum_word("cycle", billing_pb2.BudgetCycle, request.cycle)
    return NewBudget(
        tenant_id=request.tenant_id,
        limit_micros=check_micros("limit_micros", request.limit_micros),
        id=check_id("budget_id", request.budget_id),
        team_id=check_id("team_id", request.team_id) if request.team_id else "",
        key_id=check_text("key_id", request.key_id, required=False),
        cycle="month" if cycle == "unspecified" else cycle,
        rolling_seconds=request.rolling_seconds,
        time_zone=request.time_zone or "UTC",
        soft=request.soft,
        alert_percents=check_percents(request.alert_percents),
    )


def budget_change_of(request: budgets_pb2.ChangeBudgetRequest) -> BudgetChange:
    """New settings of a budget."""
    limited = request.HasField("limit_micros")
    return BudgetChange(
        limit_micros=check_micros("limit_micros", request.limit_micros) if limited else None,
        soft=request.soft if request.HasField("soft") else None,
        alert_percents=check_percents(request.alert_percents) if request.alert_percents else None,
    )


def budget_message(budget: Budget) -> billing_pb2.Budget:
    """A budget."""
    return billing_pb2.Budget(
        tenant_id=budget.tenant_id,
        limit_micros=budget.limit_micros,
        spent_micros=budget.spent_micros,
        reserved_micros=budget.reserved_micros,
        currency_code=budget.currency_code,
        period_start_time=timestamp(budget.period_start),
        id=budget.id,
        team_id=budget.team_id,
        key_id=budget.key_id,
        cycle=enum_value(billing_pb2.BudgetCycle, budget.cycle),
        rolling_seconds=budget.rolling_seconds,
        time_zone=budget.time_zone,
        soft=budget.soft,
        alert_percents=budget.alert_percents,
        etag=str(budget.version),
    )


def event_message(event: BudgetEvent, currency_code: str) -> budgets_pb2.BudgetEvent:
    """A threshold that was reached."""
    return budgets_pb2.BudgetEvent(
        budget_id=event.budget_id,
        percent=event.percent,
        spent_micros=event.spent_micros,
        limit_micros=event.limit_micros,
        currency_code=currency_code,
        create_time=timestamp(event.create_time),
    )
