"""AuditService: decisions in, decisions out."""

from __future__ import annotations

from llmmesh.audit.v1 import audit_pb2
from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceServicer
from meshkit.server import Context
from services.billing import pagination
from services.billing.access import visible_tenant
from services.billing.audit.messages import event_message, event_of
from services.billing.database.audit import AuditStore
from services.billing.fields import check_number_of

MOST_EVENTS = 1000


class AuditServicer(AuditServiceServicer):
    """Decodes, asks the store, encodes."""

    def __init__(self, events: AuditStore) -> None:
        self._events = events

    async def RecordEvents(
        self, request: audit_pb2.RecordEventsRequest, context: Context
    ) -> audit_pb2.RecordEventsResponse:
        """Append events."""
        check_number_of("events", len(request.events), most=MOST_EVENTS)
        await self._events.append([event_of(f"events[{index}]", event) for index, event in enumerate(request.events)])
        return audit_pb2.RecordEventsResponse()

    async def ListEvents(self, request: audit_pb2.ListEventsRequest, context: Context) -> audit_pb2.ListEventsResponse:
        """A page of events."""
        tenant_id = visible_tenant(request.tenant_id)
        size = pagination.page_size(request.page_size)
        listing = f"audit/{tenant_id}"
        before = pagination.position(request.page_token, listing)
        rows, last = pagination.split(await self._events.page(tenant_id, most=size + 1, before=before), size)
        more = pagination.token(listing, last.create_time, last.id) if last and last.create_time else ""
        return audit_pb2.ListEventsResponse(events=[event_message(event) for event in rows], next_page_token=more)
