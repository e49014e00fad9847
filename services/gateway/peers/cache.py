"""The cache room: never an error, at worst a miss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import grpc

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.deadline import time_left
from meshkit.identity import Identity, acting_as, current_identity
from meshkit.log import get_logger
from services.gateway.coalescing import Coalescing

if TYPE_CHECKING:
    from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub

CacheLevel: TypeAlias = cache_pb2.CacheLevel.ValueType

log = get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up brought."""

    answer: cache_pb2.CachedAnswer | None = None
    unavailable: bool = False


class CachePeer:
    """Looks answers up and stores them."""

    def __init__(self, stub: CacheServiceAsyncStub, exact_seconds: float, semantic_seconds: float) -> None:
        self._stub = stub
        self._exact_seconds = exact_seconds
        self._semantic_seconds = semantic_seconds
        self._lookups = Coalescing[Found]()

    async def look_up(self, prompt: chat_pb2.ChatPrompt, guard_policy_version: str, level: CacheLevel) -> Found:
        """Ask one level; a cache that is away or too slow is `unavailable`.

        The same question asked by callers of one tenant at the same moment is one call.
        """
        question = prompt.SerializeToString(deterministic=True)
        key = (current_identity().tenant_id, level, guard_policy_version, question)
        return await self._lookups.join(key, lambda: self._look_up(prompt, guard_policy_version, level))

    async def _look_up(self, prompt: chat_pb2.ChatPrompt, guard_policy_version: str, level: CacheLevel) -> Found:
        request = cache_pb2.LookupAnswerRequest(prompt=prompt, guard_policy_version=guard_policy_version, level=level)
        exact = level == cache_pb2.CACHE_LEVEL_EXACT
        seconds = self._exact_seconds if exact else self._semantic_seconds
        try:
            response = await self._stub.LookupAnswer(request, timeout=time_left(seconds))
        except grpc.aio.AioRpcError as error:
            log.warning("cache_unavailable", code=error.code().name, details=error.details())
            return Found(unavailable=True)
        answer = response.answer if response.HasField("answer") else None
        return Found(answer, response.unavailable)

    async def store(self, owner: Identity, request: cache_pb2.StoreAnswerRequest) -> None:
        """Remember an answer for its owner; a cache that is away forgets it."""
        with acting_as(owner):
            try:
                await self._stub.StoreAnswer(request, timeout=self._semantic_seconds * 2)
            except grpc.aio.AioRpcError as error:
                log.warning("answer_not_stored", code=error.code().name, details=error.details())
