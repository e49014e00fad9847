"""BudgetService: budgets of organisations, teams and keys."""

from __future__ import annotations

from llmmesh.billing.v1 import budgets_pb2
from llmmesh.billing.v1.budgets_pb2_grpc import BudgetServiceServicer
from meshkit.errors import FieldInvalid
from meshkit.server import Context
from services.billing import pagination
from services.billing.access import visible_tenant
from services.billing.budgets.budget import DEFAULT_ID
from services.billing.budgets.messages import (
    budget_change_of,
    budget_message,
    event_message,
    new_budget_of,
)
from services.billing.database.budgets import BudgetStore
from services.billing.fields import check_id, check_text
from services.billing.once import Once
from services.billing.versions import changed, version_of


class BudgetServicer(BudgetServiceServicer):
    """Decodes, asks the store, encodes."""

    def __init__(self, budgets: BudgetStore) -> None:
        self._budgets = budgets

    async def CreateBudget(
        self, request: budgets_pb2.CreateBudgetRequest, context: Context
    ) -> budgets_pb2.CreateBudgetResponse:
        """Make a budget."""
        await self._currency(request.tenant_id)
        budget = await self._budgets.create(new_budget_of(request), Once.of(request, request.request_id))
        return budgets_pb2.CreateBudgetResponse(budget=budget_message(budget))

    async def ListBudgets(
        self, request: budgets_pb2.ListBudgetsRequest, context: Context
    ) -> budgets_pb2.ListBudgetsResponse:
        """A page of budgets."""
        await self._currency(request.tenant_id)
        size = pagination.page_size(request.page_size)
        team_id = check_text("team_id", request.team_id, required=False)
        key_id = check_text("key_id", request.key_id, required=False)
        listing = f"budgets/{request.tenant_id}/{team_id}/{key_id}"
        after = pagination.position(request.page_token, listing, str)
        found = await self._budgets.page(
            request.tenant_id,
            most=size + 1,
            after=str(after.id) if after else "",
            team_id=team_id,
            key_id=key_id,
        )
        rows, last = pagination.split(found, size)
        return budgets_pb2.ListBudgetsResponse(
            budgets=[budget_message(budget) for budget in rows],
            next_page_token=pagination.token(listing, last.period_start, last.id) if last else "",
        )

    async def ChangeBudget(
        self, request: budgets_pb2.ChangeBudgetRequest, context: Context
    ) -> budgets_pb2.ChangeBudgetResponse:
        """Change a budget's settings."""
        change, once = budget_change_of(request), Once.of(request, request.request_id)
        await self._check_budget(request.tenant_id, request.budget_id)
        budget = await self._budgets.change(
            request.tenant_id, request.budget_id, change, version=version_of(request.etag), once=once
        )
        return budgets_pb2.ChangeBudgetResponse(budget=budget_message(budget))

    async def DeleteBudget(
        self, request: budgets_pb2.DeleteBudgetRequest, context: Context
    ) -> budgets_pb2.DeleteBudgetResponse:
        """Delete a budget."""
        version = version_of(request.etag)
        if request.budget_id == DEFAULT_ID:
            raise FieldInvalid("budget_id", "must not be the default budget: raise its limit instead")
        await self._check_budget(request.tenant_id, request.budget_id)
        if not await self._budgets.delete(request.tenant_id, request.budget_id, version=version):
            raise changed(f"tenants/{request.tenant_id}/budgets/{request.budget_id}")
        return budgets_pb2.DeleteBudgetResponse()

    async def ListBudgetEvents(
        self, request: budgets_pb2.ListBudgetEventsRequest, context: Context
    ) -> budgets_pb2.ListBudgetEventsResponse:
        """A page of thresholds that were reached."""
        currency_code = await self._currency(request.tenant_id)
        size = pagination.page_size(request.page_size)
        budget_id = check_id("budget_id", request.budget_id) if request.budget_id else ""
        listing = f"budget-events/{request.tenant_id}/{budget_id}"
        before = pagination.position(request.page_token, listing)
        found = await self._budgets.events(request.tenant_id, budget_id, most=size + 1, before=before)
        rows, last = pagination.split(found, size)
        return budgets_pb2.ListBudgetEventsResponse(
            events=[event_message(event, currency_code) for event in rows],
            next_page_token=pagination.token(listing, last.create_time, last.id) if last else "",
        )

    async def _currency(self, tenant_id: str) -> str:
        """The currency of a tenant the caller may see."""
        return await self._budgets.currency_of(visible_tenant(tenant_id))

    async def _check_budget(self, tenant_id: str, budget_id: str) -> None:
        await self._currency(tenant_id)
        await self._budgets.one(tenant_id, check_id("budget_id", budget_id))
