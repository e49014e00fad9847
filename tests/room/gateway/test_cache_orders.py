"""What the cache is told after an answer, while it takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceServicer, add_CacheServiceServicer_to_server
from meshkit.background import in_background
from meshkit.identity import Identity
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings
from services.gateway.background import STORE_WORKERS, Outboxes
from services.gateway.config import GatewayConfig
from services.gateway.peers.connections import connected
from services.gateway.resources import CacheOrder
from tests.support.cache_calls import prompt, store
from tests.support.gateway_room import QUIET
from tests.support.waiting import until

ACME = Identity(tenant_id="acme")
SLOW_EMBEDDINGS = 8
"""Answers that a busy semantic level keeps waiting."""


class SlowCache(CacheServiceServicer):
    """Stores as long as anybody waits for it."""

    def __init__(self) -> None:
        self.storing = 0
        self.released: list[str] = []

    async def StoreAnswer(self, request: Any, context: Any) -> Any:
        self.storing += 1
        await asyncio.Event().wait()

    async def ReleaseLease(self, request: Any, context: Any) -> Any:
        self.released.append(request.lease_id)
        return cache_pb2.ReleaseLeaseResponse()


@asynccontextmanager
async def delivering_to(cache: SlowCache) -> AsyncIterator[Outboxes]:
    """A gateway's outboxes, at work."""
    mount = Mount(add_CacheServiceServicer_to_server, cache)
    async with running([mount], ServiceSettings(**QUIET), room="cache") as port:
        patient: dict[str, Any] = {"mesh_target": f"127.0.0.1:{port}", "semantic_timeout_seconds": 60}
        config = GatewayConfig(**{**QUIET, **patient})
        async with connected(config) as peers:
            outboxes = Outboxes.to(peers, config)
            async with in_background(*(each.run() for each in outboxes.each())):
                yield outboxes


async def test_an_answer_that_is_slowly_stored_holds_up_no_other() -> None:
    cache = SlowCache()

    async def all_are_being_stored() -> bool:
        return cache.storing == SLOW_EMBEDDINGS

    async with delivering_to(cache) as outboxes:
        for _ in range(SLOW_EMBEDDINGS):
            assert outboxes.tell_cache(CacheOrder(ACME, store(prompt())))
        await until(all_are_being_stored)


async def test_a_lease_goes_back_past_answers_that_wait_to_be_stored() -> None:
    cache = SlowCache()

    async def is_given_back() -> bool:
        return cache.released == ["a lease"]

    async with delivering_to(cache) as outboxes:
        for _ in range(STORE_WORKERS + 1):
            assert outboxes.tell_cache(CacheOrder(ACME, store(prompt())))
        assert outboxes.tell_cache(CacheOrder(ACME, cache_pb2.ReleaseLeaseRequest(lease_id="a lease")))
        await until(is_given_back)
