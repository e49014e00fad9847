"""What the cache is asked and told, while it takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceServicer, add_CacheServiceServicer_to_server
from meshkit.background import in_background
from meshkit.identity import Identity, acting_as
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings
from services.gateway.background import STORE_WORKERS, Outboxes
from services.gateway.config import GatewayConfig
from services.gateway.flights import Found
from services.gateway.peers.connections import Peers, connected
from services.gateway.resources import CacheOrder
from tests.support.cache_calls import prompt, store
from tests.support.gateway_room import QUIET
from tests.support.waiting import until

ACME = Identity(tenant_id="acme")
SLOW_EMBEDDINGS = 8
"""Answers that a busy semantic level keeps waiting."""


class SlowCache(CacheServiceServicer):
    """Stores as long as anybody waits for it, and finds nothing but a lease, once it may answer."""

    def __init__(self) -> None:
        self.asked, self.answers, self.takes_back = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.takes_back.set()
        self.storing = 0
        self.released: list[str] = []

    async def LookupAnswer(self, request: Any, context: Any) -> Any:
        self.asked.set()
        await self.answers.wait()
        return cache_pb2.LookupAnswerResponse(lease_id="a lease")

    async def StoreAnswer(self, request: Any, context: Any) -> Any:
        self.storing += 1
        await asyncio.Event().wait()

    async def ReleaseLease(self, request: Any, context: Any) -> Any:
        self.released.append(request.lease_id)
        await self.takes_back.wait()
        return cache_pb2.ReleaseLeaseResponse()

    async def has_it_back(self) -> bool:
        """Whether its lease was given back."""
        return self.released == ["a lease"]


@asynccontextmanager
async def asking(cache: SlowCache) -> AsyncIterator[tuple[Peers, GatewayConfig]]:
    """What a gateway reaches it through."""
    mount = Mount(add_CacheServiceServicer_to_server, cache)
    async with running([mount], ServiceSettings(**QUIET), room="cache") as port:
        patient: dict[str, Any] = {
            "mesh_target": f"127.0.0.1:{port}",
            "cache_timeout_seconds": 60,
            "semantic_timeout_seconds": 60,
        }
        config = GatewayConfig(**{**QUIET, **patient})
        async with connected(config) as peers:
            yield peers, config


@asynccontextmanager
async def delivering_to(cache: SlowCache) -> AsyncIterator[Outboxes]:
    """A gateway's outboxes, at work."""
    async with asking(cache) as (peers, config):
        outboxes = Outboxes.to(peers, config)
        async with in_background(*(each.run() for each in outboxes.each())):
            yield outboxes


def asked_twice(peers: Peers) -> list[asyncio.Task[Found]]:
    """Two who ask the same."""
    request = cache_pb2.LookupAnswerRequest(prompt=prompt(), level=cache_pb2.CACHE_LEVEL_EXACT)
    with acting_as(ACME):
        return [asyncio.create_task(peers.cache.look_up(request)) for _ in range(2)]


async def left_by_all(peers: Peers, cache: SlowCache) -> None:
    """Two ask the same and leave before they are answered."""
    callers = asked_twice(peers)
    await cache.asked.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    cache.answers.set()


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
    async with delivering_to(cache) as outboxes:
        for _ in range(STORE_WORKERS + 1):
            assert outboxes.tell_cache(CacheOrder(ACME, store(prompt())))
        assert outboxes.tell_cache(CacheOrder(ACME, cache_pb2.ReleaseLeaseRequest(lease_id="a lease")))
        await until(cache.has_it_back)


async def test_a_lease_goes_back_when_all_have_left_who_asked_for_it() -> None:
    cache = SlowCache()
    async with asking(cache) as (peers, _):
        await left_by_all(peers, cache)
        await until(cache.has_it_back)


async def test_who_asks_while_a_lease_goes_back_has_one_too() -> None:
    cache = SlowCache()
    cache.takes_back.clear()
    async with asking(cache) as (peers, _):
        await left_by_all(peers, cache)
        await until(cache.has_it_back)
        coming = asked_twice(peers)
        cache.takes_back.set()
        assert [found.lease_id for found in await asyncio.gather(*coming)] == ["a lease"] * 2


async def test_a_lease_is_for_the_one_who_stayed() -> None:
    cache = SlowCache()
    async with asking(cache) as (peers, _):
        leaving, staying = asked_twice(peers)
        await cache.asked.wait()
        leaving.cancel()
        cache.answers.set()
        assert (await staying).lease_id == "a lease"
    assert leaving.cancelled()
    assert not cache.released
