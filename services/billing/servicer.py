"""BillingService: reservations for the gateway; budgets, prices and usage for people."""

from __future__ import annotations

from datetime import UTC, datetime

from llmmesh.billing.v1 import billing_pb2
from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceServicer
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid
from meshkit.server import Context
from services.billing import pagination
from services.billing.access import paying_caller, sees_margins, visible_tenant
from services.billing.budgets.budget import DEFAULT_ID, Budget, BudgetChange
from services.billing.budgets.messages import budget_message
from services.billing.corrections import Corrections
from services.billing.database.budgets import BudgetStore
from services.billing.database.ledger import LedgerStore
from services.billing.fields import check_count, check_id, check_listed, check_micros, check_number_of, check_text
from services.billing.lease import Lease
from services.billing.ledger import CacheHits
from services.billing.messages import (
    ask_of,
    cache_hit_of,
    deployments_of,
    enum_word,
    price_message,
    reservation_message,
    time_of,
    timestamp,
    usage_filter_of,
    usage_of,
    usage_record_message,
    usage_total_message,
)
from services.billing.once import Once
from services.billing.prices import PriceBook, Usage
from services.billing.reservations import Reservations
from services.billing.versions import version_of

MOST_RECORDS = 1000
STOPS = ("", "guard", "repetition", "cost")
"""Why the mesh ends answers."""


class BillingServicer(BillingServiceServicer):
    """Decodes, asks the domain, encodes."""

    def __init__(
        self,
        *,
        reservations: Reservations,
        cache_hits: CacheHits,
        budgets: BudgetStore,
        ledger: LedgerStore,
        corrections: Corrections,
        prices: PriceBook,
    ) -> None:
        self._reservations = reservations
        self._cache_hits = cache_hits
        self._budgets = budgets
        self._ledger = ledger
        self._corrections = corrections
        self._prices = prices

    async def CreateReservation(
        self, request: billing_pb2.CreateReservationRequest, context: Context
    ) -> billing_pb2.CreateReservationResponse:
        """Hold the worst case of a request against the caller's budget."""
        reservation = await self._reservations.create(paying_caller(), ask_of(request))
        return billing_pb2.CreateReservationResponse(reservation=reservation_message(reservation))

    async def CommitReservation(
        self, request: billing_pb2.CommitReservationRequest, context: Context
    ) -> billing_pb2.CommitReservationResponse:
        """Bill what was used."""
        lease = _lease(request.reservation_id).of_part(check_text("part", request.part, required=False))
        settled = await self._reservations.commit(
            paying_caller(),
            lease,
            deployment=check_text("deployment", request.deployment),
            provider=check_text("provider", request.provider, required=False),
            usage=usage_of("usage", request.usage),
            finish_reason=enum_word("finish_reason", chat_pb2.FinishReason, request.finish_reason),
            stop=check_listed("stop", request.stop, STOPS),
        )
        return billing_pb2.CommitReservationResponse(
            cost_micros=settled.cost_micros,
            currency_code=lease.currency_code,
            price_time=timestamp(settled.price_time) if settled.price_time else None,
        )

    async def ExtendReservation(
        self, request: billing_pb2.ExtendReservationRequest, context: Context
    ) -> billing_pb2.ExtendReservationResponse:
        """Hold more for an answer that outgrows its reservation."""
        worst_case = Usage(
            input_tokens=check_count("input_tokens", request.input_tokens),
            output_tokens=check_count("max_output_tokens", request.max_output_tokens),
        )
        reservation = await self._reservations.extend(
            paying_caller(), _lease(request.reservation_id), deployments_of(request.deployments), worst_case
        )
        return billing_pb2.ExtendReservationResponse(reservation=reservation_message(reservation))

    async def CancelReservation(
        self, request: billing_pb2.CancelReservationRequest, context: Context
    ) -> billing_pb2.CancelReservationResponse:
        """Let a reservation go."""
        await self._reservations.cancel(paying_caller(), _lease(request.reservation_id))
        return billing_pb2.CancelReservationResponse()

    async def RecordUsage(
        self, request: billing_pb2.RecordUsageRequest, context: Context
    ) -> billing_pb2.RecordUsageResponse:
        """Write down cache hits."""
        check_number_of("records", len(request.records), most=MOST_RECORDS)
        hits = [cache_hit_of(f"records[{index}]", record) for index, record in enumerate(request.records)]
        await self._cache_hits.record(hits)
        return billing_pb2.RecordUsageResponse()

    async def ListPrices(
        self, request: billing_pb2.ListPricesRequest, context: Context
    ) -> billing_pb2.ListPricesResponse:
        """The prices in force."""
        quotes = self._prices.in_force(datetime.now(UTC))
        return billing_pb2.ListPricesResponse(prices=[price_message(quote) for quote in quotes])

    async def GetBudget(self, request: billing_pb2.GetBudgetRequest, context: Context) -> billing_pb2.GetBudgetResponse:
        """A tenant's budget."""
        return billing_pb2.GetBudgetResponse(budget=budget_message(await self._budget(request)))

    async def UpdateBudget(
        self, request: billing_pb2.UpdateBudgetRequest, context: Context
    ) -> billing_pb2.UpdateBudgetResponse:
        """Set a tenant's budget."""
        limit_micros = check_micros("limit_micros", request.limit_micros)
        change, once = BudgetChange(limit_micros=limit_micros), Once.of(request, request.request_id)
        await self._budgets.currency_of(visible_tenant(request.tenant_id))  # raises when there is no such tenant
        budget = await self._budgets.change(
            request.tenant_id, DEFAULT_ID, change, version=version_of(request.etag), once=once
        )
        return billing_pb2.UpdateBudgetResponse(budget=budget_message(budget))

    async def ListUsageRecords(
        self, request: billing_pb2.ListUsageRecordsRequest, context: Context
    ) -> billing_pb2.ListUsageRecordsResponse:
        """A page of ledger rows."""
        tenant_id = visible_tenant(request.tenant_id)
        await self._budgets.currency_of(tenant_id)  # raises when there is no such tenant
        size, which = pagination.page_size(request.page_size), usage_filter_of(request)
        listing = f"usage/{tenant_id}/{which}"
        before = pagination.position(request.page_token, listing)
        rows, last = pagination.split(await self._ledger.page(tenant_id, which, most=size + 1, before=before), size)
        return billing_pb2.ListUsageRecordsResponse(
            records=[usage_record_message(row, with_margin=sees_margins()) for row in rows],
            next_page_token=pagination.token(listing, last.create_time, last.id) if last else "",
        )

    async def CorrectUsage(
        self, request: billing_pb2.CorrectUsageRequest, context: Context
    ) -> billing_pb2.CorrectUsageResponse:
        """Correct an estimate."""
        usage = usage_of("usage", request.usage)
        if usage.estimated:
            raise FieldInvalid("usage.estimated", "must be false: an estimate is corrected by what was used")
        request_id = check_text("request_id", request.request_id)
        correction = await self._corrections.correct(visible_tenant(request.tenant_id), request_id, usage)
        message = usage_record_message(correction, with_margin=sees_margins())
        return billing_pb2.CorrectUsageResponse(correction=message)

    async def GetUsageSummary(
        self, request: billing_pb2.GetUsageSummaryRequest, context: Context
    ) -> billing_pb2.GetUsageSummaryResponse:
        """What a tenant spent and saved."""
        currency_code = await self._budgets.currency_of(visible_tenant(request.tenant_id))
        summary = await self._ledger.summary(request.tenant_id, *_period(request))
        return billing_pb2.GetUsageSummaryResponse(
            total=usage_total_message(summary.total, currency_code),
            by_provider=[usage_total_message(total, currency_code) for total in summary.by_provider],
            by_model=[usage_total_message(total, currency_code) for total in summary.by_model],
        )

    async def _budget(self, request: billing_pb2.GetBudgetRequest) -> Budget:
        tenant_id = visible_tenant(request.tenant_id)
        await self._budgets.currency_of(tenant_id)  # raises when there is no such tenant
        return await self._budgets.one(tenant_id, check_id("budget_id", request.budget_id or DEFAULT_ID))


def _lease(reservation_id: str) -> Lease:
    try:
        return Lease.from_id(reservation_id)
    except ValueError:
        raise FieldInvalid("reservation_id", "is not the id of a reservation") from None


def _period(request: billing_pb2.GetUsageSummaryRequest) -> tuple[datetime, datetime]:
    """From the start of the month up to now, unless the request says otherwise."""
    now = datetime.now(UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if request.HasField("start_time"):
        start = time_of("start_time", request.start_time)
    end = time_of("end_time", request.end_time) if request.HasField("end_time") else now
    if end < start:
        raise FieldInvalid("end_time", "must not lie before start_time")
    return start, end
