"""Forgets the answers of tenants that are deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

from llmmesh.tenant.v1 import tenant_pb2
from meshkit.log import get_logger
from services.cache.purging import Forgotten
from services.cache.vectorstores.port import Selection

RETRY_SECONDS = 5.0
"""After a level was away."""

log = get_logger()


class Departures:
    """Each deletion is one purge of both levels in each process, for a process may have a level of its own.

    Deletions are told again whenever the news are followed afresh, and after a restart: none is missed, and those that
    were seen to are passed over.
    """

    def __init__(
        self, forget: Callable[[Selection], Awaitable[Forgotten]], *, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._forget = forget
        self._retry_seconds = retry_seconds
        self._waiting: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._news = asyncio.Event()

    def take(self, deletions: Iterable[tenant_pb2.TenantDeletion]) -> None:
        """Take in news."""
        for deletion in deletions:
            since = deletion.delete_time.ToNanoseconds()
            if self._done.get(deletion.tenant_id) != since:
                self._waiting[deletion.tenant_id] = since
                self._news.set()

    async def run(self) -> NoReturn:
        """Forget until cancelled; a level that is away is asked again."""
        while True:
            await self._news.wait()
            self._news.clear()
            for tenant_id in list(self._waiting):
                await self._see_to(tenant_id)
            if self._waiting:
                await asyncio.sleep(self._retry_seconds)
                self._news.set()

    async def _see_to(self, tenant_id: str) -> None:
        since = self._waiting[tenant_id]
        forgotten = await self._forget(Selection(tenant_id))
        log.info(
            "deleted_tenant_forgotten",
            tenant=tenant_id,
            exact=forgotten.exact_count,
            semantic=forgotten.semantic_count,
            away=forgotten.away,
        )
        if forgotten.away:
            return
        self._done[tenant_id] = since
        if self._waiting[tenant_id] == since:
            del self._waiting[tenant_id]
