"""ContentsService: kept for those who asked for it, shown to auditors, destroyed on demand."""

from __future__ import annotations

from llmmesh.audit.v1 import contents_pb2
from llmmesh.audit.v1.contents_pb2_grpc import ContentsServiceServicer
from meshkit.server import Context
from services.billing.access import visible_tenant
from services.billing.contents.vault import Contents, Vault
from services.billing.fields import check_id, check_text


class ContentsServicer(ContentsServiceServicer):
    """Decodes, asks the vault, encodes."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def KeepContents(
        self, request: contents_pb2.KeepContentsRequest, context: Context
    ) -> contents_pb2.KeepContentsResponse:
        """Encrypt and keep."""
        await self._vault.keep(
            check_id("tenant_id", request.tenant_id),
            check_text("request_id", request.request_id),
            Contents(request.prompt, request.answer),
        )
        return contents_pb2.KeepContentsResponse()

    async def GetContents(
        self, request: contents_pb2.GetContentsRequest, context: Context
    ) -> contents_pb2.GetContentsResponse:
        """Decrypt and show."""
        tenant_id = visible_tenant(request.tenant_id)
        contents = await self._vault.show(tenant_id, check_text("request_id", request.request_id))
        return contents_pb2.GetContentsResponse(prompt=contents.prompt, answer=contents.answer)

    async def DestroyContents(
        self, request: contents_pb2.DestroyContentsRequest, context: Context
    ) -> contents_pb2.DestroyContentsResponse:
        """Destroy the key."""
        count = await self._vault.destroy(visible_tenant(request.tenant_id))
        return contents_pb2.DestroyContentsResponse(request_count=count)
