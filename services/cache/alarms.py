"""Tells the audit log of entries that were tampered with; nothing waits for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from google.protobuf.timestamp_pb2 import Timestamp
from grpc.aio import AioRpcError

from llmmesh.audit.v1 import audit_pb2
from meshkit.identity import current_identity
from meshkit.log import get_logger
from services.cache.metrics import ALARMS_LOST

if TYPE_CHECKING:
    from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub

MOST_WAITING = 1000
ATTEMPTS = 5
PAUSE_SECONDS = 1.0
SEND_SECONDS = 3.0
REASON = "CACHE_ENTRY_TAMPERED"

log = get_logger()


class Alarms:
    """Events on their way to the audit log; while it is away they wait, and those there is no room for are counted."""

    def __init__(self, audit: AuditServiceAsyncStub) -> None:
        self._audit = audit
        self._waiting: asyncio.Queue[audit_pb2.Event] = asyncio.Queue(MOST_WAITING)

    def tampered(self, tenant_id: str, model: str, level: str) -> None:
        """Note that an entry of a tenant is not what was written there."""
        caller = current_identity()
        now = Timestamp()
        now.FromNanoseconds(time.time_ns())
        event = audit_pb2.Event(
            request_id=f"cache-{uuid4()}",
            tenant_id=tenant_id,
            key_id=caller.key_id,
            model=model,
            outcome="refused",
            reason=REASON,
            create_time=now,
        )
        log.error("entry_tampered", level=level, tenant=tenant_id, audit_id=event.request_id)
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            ALARMS_LOST.inc()

    async def run(self) -> None:
        """Send events until cancelled."""
        while True:
            await self._send(await self._waiting.get())

    async def _send(self, event: audit_pb2.Event) -> None:
        for _ in range(ATTEMPTS):
            try:
                await self._audit.RecordEvents(audit_pb2.RecordEventsRequest(events=[event]), timeout=SEND_SECONDS)
            except AioRpcError as error:
                log.warning("alarm_not_sent", code=error.code().name)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return
        ALARMS_LOST.inc()
