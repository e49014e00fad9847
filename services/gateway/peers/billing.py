"""The billing room: policies, reservations, settlements, the ledger and the audit log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc

from llmmesh.audit.v1 import audit_pb2, contents_pb2
from llmmesh.billing.v1 import billing_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.deadline import time_left
from meshkit.errors import BillingUnavailable
from meshkit.identity import Identity, acting_as
from meshkit.log import get_logger
from services.gateway.peers.fault import room_away

if TYPE_CHECKING:
    from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub
    from llmmesh.audit.v1.contents_pb2_grpc import ContentsServiceAsyncStub
    from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceAsyncStub
    from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceAsyncStub

Response = TypeVar("Response")

log = get_logger()


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a reservation ends: with what was used, or let go when `commit` is None."""

    owner: Identity
    reservation_id: str
    commit: billing_pb2.CommitReservationRequest | None


class BillingPeer:
    """Calls billing; every failure without a reason of its own is BillingUnavailable."""

    def __init__(
        self,
        billing: BillingServiceAsyncStub,
        tenants: TenantServiceAsyncStub,
        audit: AuditServiceAsyncStub,
        contents: ContentsServiceAsyncStub,
        call_seconds: float,
        resync_seconds: float,
    ) -> None:
        self._billing = billing
        self._tenants = tenants
        self._audit = audit
        self._contents = contents
        self._call_seconds = call_seconds
        self._resync_seconds = resync_seconds

    async def reserve(self, request: billing_pb2.CreateReservationRequest) -> billing_pb2.Reservation:
        """Hold the worst-case price. Raises BillingUnavailable; a refusal passes as billing said it."""
        call = self._billing.CreateReservation(request, timeout=time_left(self._call_seconds))
        return (await self._reached(call)).reservation

    async def extend(self, request: billing_pb2.ExtendReservationRequest) -> billing_pb2.Reservation:
        """Hold more. Raises BillingUnavailable; BUDGET_EXCEEDED passes as billing said it."""
        call = self._billing.ExtendReservation(request, timeout=time_left(self._call_seconds))
        return (await self._reached(call)).reservation

    async def settle(self, settlement: Settlement) -> billing_pb2.CommitReservationResponse | None:
        """Settle or let go; safe to repeat. Raises BillingUnavailable when it must be tried again."""
        with acting_as(settlement.owner):
            if settlement.commit is not None:
                call = self._billing.CommitReservation(settlement.commit, timeout=self._call_seconds)
                return await self._reached(call)
            request = billing_pb2.CancelReservationRequest(reservation_id=settlement.reservation_id)
            await self._reached(self._billing.CancelReservation(request, timeout=self._call_seconds))
            return None

    async def record_usage(self, records: Sequence[billing_pb2.UsageRecord]) -> None:
        """Append ledger rows of cached answers; rows known already are skipped."""
        request = billing_pb2.RecordUsageRequest(records=records)
        await self._reached(self._billing.RecordUsage(request, timeout=self._call_seconds))

    async def record_events(self, events: Sequence[audit_pb2.Event]) -> None:
        """Append audit events; events known already are skipped."""
        request = audit_pb2.RecordEventsRequest(events=events)
        await self._reached(self._audit.RecordEvents(request, timeout=self._call_seconds))

    async def keep_contents(self, batch: Sequence[contents_pb2.KeepContentsRequest]) -> None:
        """Have prompts and answers kept, encrypted; a repeat changes nothing."""
        for contents in batch:
            await self._reached(self._contents.KeepContents(contents, timeout=self._call_seconds))

    async def key(self, caller: Identity) -> tenant_pb2.Key | None:
        """What the caller's key may do; None when there is no such key. Raises BillingUnavailable."""
        request = tenant_pb2.LookupKeyRequest(key_id=caller.key_id)
        try:
            with acting_as(caller):
                return (await self._reached(self._tenants.LookupKey(request, timeout=self._call_seconds))).key
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise _away(error) from error

    async def policies(self) -> AsyncGenerator[tenant_pb2.WatchPoliciesResponse, None]:
        """All policies, then changes, until it is time to resync. Raises BillingUnavailable when the stream breaks."""
        call = self._tenants.WatchPolicies(tenant_pb2.WatchPoliciesRequest(), timeout=self._resync_seconds)
        heard = False
        try:
            async for response in call:
                yield response
                heard = True
        except grpc.aio.AioRpcError as error:
            if not heard or error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _away(error) from error
        finally:
            call.cancel()

    async def _reached(self, call: Awaitable[Response]) -> Response:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if room_away(error):
                raise _away(error) from error
            raise


def _away(error: grpc.aio.AioRpcError) -> BillingUnavailable:
    log.warning("billing_unavailable", code=error.code().name, details=error.details())
    return BillingUnavailable("Spending cannot be booked right now: retry in a moment.", retry_after_seconds=2)
