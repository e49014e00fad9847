"""A cache that does what a healthy one with its stores at hand never does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceServicer, add_CacheServiceServicer_to_server
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings

Answered = cache_pb2.LookupAnswerResponse


class ScriptedCache(CacheServiceServicer):
    """Says the same to every look-up of a level, and keeps nothing."""

    def __init__(self, exact: Answered, semantic: Answered) -> None:
        self._exact = exact
        self._semantic = semantic

    async def LookupAnswer(self, request: Any, context: Any) -> Answered:
        return self._exact if request.level == cache_pb2.CACHE_LEVEL_EXACT else self._semantic

    async def StoreAnswer(self, request: Any, context: Any) -> cache_pb2.StoreAnswerResponse:
        return cache_pb2.StoreAnswerResponse()

    async def ReleaseLease(self, request: Any, context: Any) -> cache_pb2.ReleaseLeaseResponse:
        return cache_pb2.ReleaseLeaseResponse()

    async def RecordUses(self, request: Any, context: Any) -> cache_pb2.RecordUsesResponse:
        return cache_pb2.RecordUsesResponse()


@asynccontextmanager
async def scripted_cache(exact: Answered | None = None, semantic: Answered | None = None) -> AsyncIterator[str]:
    """Run one; yields where it listens."""
    mounts = [Mount(add_CacheServiceServicer_to_server, ScriptedCache(exact or Answered(), semantic or Answered()))]
    alone = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=0)
    async with running(mounts, alone, room="cache") as port:
        yield f"127.0.0.1:{port}"
