"""Keys that are no longer good although their tokens are: known in every room within a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn, TypeAlias, cast

import grpc

from llmmesh.tenant.v1 import tenant_pb2
from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceStub
from meshkit.background import in_background
from meshkit.client import connect
from meshkit.log import get_logger

if TYPE_CHECKING:
    from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceAsyncStub

RESYNC_SECONDS = 60.0
"""How often the stream is opened afresh, so that a frozen one cannot pass for a quiet one."""
PAUSE_SECONDS = 0.5
"""Between a broken stream and the next attempt."""
RENEWAL_SECONDS = 0.05

SKEW_SECONDS = 5.0
"""How far apart clocks may be: a key that is revoked now must not live on in a room whose clock is behind."""

Revoked: TypeAlias = Callable[[str], bool]
"""Whether a key is no longer good."""
Deleted: TypeAlias = Callable[[Iterable[tenant_pb2.TenantDeletion]], None]
"""Takes in which tenants are deleted; told again whenever the stream is opened afresh."""

log = get_logger()


class Revocations:
    """Since when, or from when on, keys are no longer good."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def take(self, revocations: Iterable[tenant_pb2.Revocation], *, everything: bool) -> None:
        """Take in news; `everything` replaces what was known."""
        if everything:
            self._since = {}
        for revocation in revocations:
            self._since[revocation.key_id] = revocation.revoke_time.ToNanoseconds() / 1e9

    def revoked(self, key_id: str) -> bool:
        """Whether a key is no longer good."""
        since = self._since.get(key_id)
        return since is not None and since <= self._clock() + SKEW_SECONDS


@asynccontextmanager
async def following_revocations(mesh_target: str, deleted: Deleted = lambda _: None) -> AsyncIterator[Revoked]:
    """Follow revocations, and deletions of tenants, for the block. While billing is away, those known so far hold."""
    known = Revocations()
    async with (
        connect(mesh_target, TenantServiceStub) as stub,
        in_background(_follow(known, deleted, cast("TenantServiceAsyncStub", stub))),
    ):
        yield known.revoked


async def _follow(known: Revocations, deleted: Deleted, tenants: TenantServiceAsyncStub) -> NoReturn:
    away = False
    while True:
        everything = True
        try:
            async for message in tenants.WatchRevocations(tenant_pb2.WatchRevocationsRequest(), timeout=RESYNC_SECONDS):
                known.take(message.revocations, everything=everything)
                deleted(message.deletions)
                everything = away = False
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED and not away:
                away = True
                log.warning("revocations_unreachable", code=error.code().name)
        await asyncio.sleep(PAUSE_SECONDS if away else RENEWAL_SECONDS)
