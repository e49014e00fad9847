"""The cache room: never an error, at worst a miss."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import grpc

from llmmesh.cache.v1 import cache_pb2
from meshkit.deadline import time_left
from meshkit.identity import Identity, acting_as, current_identity
from meshkit.log import get_logger
from services.gateway.coalescing import Coalescing
from services.gateway.flights import Found

if TYPE_CHECKING:
    from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub

Afterwards: TypeAlias = cache_pb2.StoreAnswerRequest | cache_pb2.ReleaseLeaseRequest
"""What the cache is told after an answer."""

log = get_logger()


class CachePeer:
    """Looks answers up and stores them."""

    def __init__(self, stub: CacheServiceAsyncStub, exact_seconds: float, semantic_seconds: float) -> None:
        self._stub = stub
        self._exact_seconds = exact_seconds
        self._semantic_seconds = semantic_seconds
        self._lookups = Coalescing[Found](lambda found: found.copy_seconds)

    async def look_up(self, request: cache_pb2.LookupAnswerRequest) -> Found:
        """Ask one level; a cache that is away or too slow is `unavailable`.

        The same asked by callers of one tenant at the same moment is one call; they share its lease. So it is for as
        long as the cache allows its answer to be given again.
        """
        key = (current_identity().tenant_id, request.SerializeToString(deterministic=True))
        return await self._lookups.join(key, lambda: self._wanted(key, request))

    async def await_answer(self, request: cache_pb2.LookupAnswerRequest, seconds: float) -> Found:
        """Wait for the answer of whoever has the lease; without one the lease may come here."""
        waiting = cache_pb2.LookupAnswerRequest()
        waiting.CopyFrom(request)
        waiting.wait.FromMilliseconds(int(time_left(seconds) * 1000))
        return await self._look_up(waiting, seconds)

    async def tell(self, owner: Identity, request: Afterwards) -> None:
        """Have an answer stored, or a lease given back, for its owner; a cache that is away forgets it."""
        with acting_as(owner):
            try:
                if isinstance(request, cache_pb2.StoreAnswerRequest):
                    await self._stub.StoreAnswer(request, timeout=self._semantic_seconds * 2)
                else:
                    await self._stub.ReleaseLease(request, timeout=self._exact_seconds)
            except grpc.aio.AioRpcError as error:
                log.warning("answer_not_stored", code=error.code().name, details=error.details())

    async def record_uses(self, uses: Sequence[cache_pb2.CacheUse]) -> None:
        """Tell what became of requests; a cache that is away does not learn it."""
        try:
            await self._stub.RecordUses(cache_pb2.RecordUsesRequest(uses=uses), timeout=self._semantic_seconds * 2)
        except grpc.aio.AioRpcError as error:
            log.warning("uses_not_recorded", code=error.code().name, details=error.details())

    async def _wanted(self, key: Hashable, request: cache_pb2.LookupAnswerRequest) -> Found:
        """What a look-up brings. A lease for which nobody waits goes back: who asks next would wait until it ends."""
        found = await self._look_up(request)
        if not found.lease_id or self._lookups.awaited(key):
            return found
        await self.tell(current_identity(), cache_pb2.ReleaseLeaseRequest(lease_id=found.lease_id))
        # Who came while it went back has not been answered yet.
        return await self._look_up(request) if self._lookups.awaited(key) else Found()

    async def _look_up(self, request: cache_pb2.LookupAnswerRequest, wait_seconds: float = 0.0) -> Found:
        exact = request.level == cache_pb2.CACHE_LEVEL_EXACT
        seconds = self._exact_seconds if exact else self._semantic_seconds
        try:
            response = await self._stub.LookupAnswer(request, timeout=time_left(seconds + wait_seconds))
        except grpc.aio.AioRpcError as error:
            log.warning("cache_unavailable", code=error.code().name, details=error.details())
            return Found(unavailable=True, unreachable=True)
        answer = response.answer if response.HasField("answer") else None
        return Found(
            answer,
            response.unavailable,
            response.similarity,
            response.lease_id,
            response.leased_elsewhere,
            response.copy_for.ToNanoseconds() / 1e9,
        )
