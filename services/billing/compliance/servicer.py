"""ComplianceService: violations, listed and exported."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.api import httpbody_pb2

from llmmesh.audit.v1 import compliance_pb2
from llmmesh.audit.v1.compliance_pb2_grpc import ComplianceServiceServicer
from meshkit.server import Context
from services.billing import pagination
from services.billing.compliance.export import FORMATS
from services.billing.compliance.messages import pack_messages, violation_message, wanted_of
from services.billing.compliance.packs import Packs
from services.billing.database.violations import ViolationStore
from services.billing.fields import check_listed

EXPORT_PAGE = 1000


class ComplianceServicer(ComplianceServiceServicer):
    """Decodes, asks the store, encodes."""

    def __init__(self, violations: ViolationStore, packs: Packs) -> None:
        self._violations = violations
        self._packs = packs

    async def ListViolations(
        self, request: compliance_pb2.ListViolationsRequest, context: Context
    ) -> compliance_pb2.ListViolationsResponse:
        """A page of violations."""
        wanted = wanted_of(request.filter)
        size = pagination.page_size(request.page_size)
        listing = f"violations/{wanted.tenant_id}"
        before = pagination.position(request.page_token, listing)
        rows, last = pagination.split(await self._violations.page(wanted, most=size + 1, before=before), size)
        return compliance_pb2.ListViolationsResponse(
            violations=[violation_message(violation) for violation in rows],
            next_page_token=pagination.token(listing, last.create_time, last.id) if last else "",
        )

    async def ExportViolations(
        self, request: compliance_pb2.ExportViolationsRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """All of them, in pieces."""
        wanted = wanted_of(request.filter)
        chosen = FORMATS[check_listed("format", request.format or "jsonl", tuple(FORMATS))]
        yield httpbody_pb2.HttpBody(content_type=chosen.media_type, data=chosen.header)
        before = None
        while found := await self._violations.page(wanted, most=EXPORT_PAGE, before=before):
            yield httpbody_pb2.HttpBody(content_type=chosen.media_type, data=chosen.lines(found))
            before = pagination.Position(found[-1].create_time, found[-1].id)

    async def ListPacks(
        self, request: compliance_pb2.ListPacksRequest, context: Context
    ) -> compliance_pb2.ListPacksResponse:
        """What a tenant's policy may name."""
        return compliance_pb2.ListPacksResponse(packs=pack_messages(self._packs))
