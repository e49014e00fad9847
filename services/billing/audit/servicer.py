"""AuditService: decisions in; decisions, and what proves them, out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from google.api import httpbody_pb2

from llmmesh.audit.v1 import audit_pb2
from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceServicer
from meshkit.server import Context
from services.billing import pagination
from services.billing.access import visible_tenant
from services.billing.audit.event import Event
from services.billing.audit.export import MEDIA_TYPE, checkpoint_line, record_line
from services.billing.audit.messages import checkpoint_message, event_message, event_of
from services.billing.database.audit import AuditStore
from services.billing.database.checkpoints import CheckpointStore
from services.billing.fields import check_number_of, check_text

MOST_EVENTS = 1000
EXPORT_PAGE = 500


class AuditServicer(AuditServiceServicer):
    """Decodes, asks the stores, encodes."""

    def __init__(
        self,
        *,
        append: Callable[[Sequence[Event]], Awaitable[None]],
        records: AuditStore,
        checkpoints: CheckpointStore,
        keys: bytes,
    ) -> None:
        self._append = append
        self._records = records
        self._checkpoints = checkpoints
        self._keys = keys

    async def RecordEvents(
        self, request: audit_pb2.RecordEventsRequest, context: Context
    ) -> audit_pb2.RecordEventsResponse:
        """Append events."""
        check_number_of("events", len(request.events), most=MOST_EVENTS)
        await self._append([event_of(f"events[{index}]", event) for index, event in enumerate(request.events)])
        return audit_pb2.RecordEventsResponse()

    async def ListEvents(self, request: audit_pb2.ListEventsRequest, context: Context) -> audit_pb2.ListEventsResponse:
        """A page of events."""
        tenant_id = visible_tenant(request.tenant_id)
        size = pagination.page_size(request.page_size)
        request_id = check_text("request_id", request.request_id, required=False)
        listing = f"audit/{tenant_id}/{request_id}"
        before = pagination.place(request.page_token, listing)
        found = await self._records.page(tenant_id, request_id, most=size + 1, before=before)
        rows, last = pagination.split(found, size)
        more = pagination.place_token(listing, last.position) if last else ""
        return audit_pb2.ListEventsResponse(events=[event_message(record) for record in rows], next_page_token=more)

    async def GetChain(self, request: audit_pb2.GetChainRequest, context: Context) -> audit_pb2.GetChainResponse:
        """Where a chain stands."""
        tenant_id = visible_tenant(request.tenant_id)
        head = await self._records.head(tenant_id)
        newest = await self._checkpoints.page(tenant_id, most=1, before=None)
        checkpoint = newest[0].checkpoint if newest else None
        return audit_pb2.GetChainResponse(
            length=head.position,
            head_sha256=head.sha256 if head.position else "",
            checkpoint=checkpoint_message(checkpoint) if checkpoint else None,
            keys_json=self._keys.decode(),
        )

    async def ListCheckpoints(
        self, request: audit_pb2.ListCheckpointsRequest, context: Context
    ) -> audit_pb2.ListCheckpointsResponse:
        """A page of checkpoints; what cannot be read is left out, and stands in the export."""
        tenant_id = visible_tenant(request.tenant_id)
        size = pagination.page_size(request.page_size)
        listing = f"checkpoints/{tenant_id}"
        before = pagination.place(request.page_token, listing)
        rows, last = pagination.split(await self._checkpoints.page(tenant_id, most=size + 1, before=before), size)
        return audit_pb2.ListCheckpointsResponse(
            checkpoints=[checkpoint_message(row.checkpoint) for row in rows if row.checkpoint],
            next_page_token=pagination.place_token(listing, last.size) if last else "",
        )

    async def ExportChain(
        self, request: audit_pb2.ExportChainRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """Everything up to now: records appended while it runs, and what seals them, are left for the next export."""
        tenant_id = visible_tenant(request.tenant_id)
        until = (await self._records.head(tenant_id)).position
        after = 0
        while records := await self._records.between(tenant_id, after, until, most=EXPORT_PAGE):
            yield _piece(map(record_line, records))
            after = records[-1].position
        after = 0
        while checkpoints := await self._checkpoints.between(tenant_id, after, until, most=EXPORT_PAGE):
            yield _piece(checkpoint_line(checkpoint.jws) for checkpoint in checkpoints)
            after = checkpoints[-1].size


def _piece(lines: Iterable[bytes]) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=MEDIA_TYPE, data=b"".join(lines))
