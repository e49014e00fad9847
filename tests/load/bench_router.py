"""The router alone, called as the gateway calls it, against the scripted provider called directly in the same run."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import grpc
import orjson
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from llmmesh.router.v1.router_pb2_grpc import RouterServiceStub
from meshkit.client import connect
from meshkit.identity import Identity, acting_as
from tests.load.figure import Figure, at_most

PAIRS = 300
STREAMS = 50
TOKENS_PER_SECOND = 100
TOKENS = 300
PROMPT = "What does a fox eat in winter, and where does it sleep?"
CALLER = Identity(tenant_id="bench", key_id="bench", roles=frozenset({"developer"}))

Arrivals = list[float]
"""When each message of one stream came, in seconds."""
Ask = Callable[[], Awaitable[Arrivals]]


async def router_figures(router_address: str, provider_url: str) -> list[Figure]:
    """What the router adds to an answer, and how evenly it hands on many at once."""
    async with _routed(router_address) as routed, _direct(provider_url) as direct:
        added = await _added(routed, direct)
        async with _routed(router_address, whole=True) as whole:
            added_whole = await _added(whole, direct)
        empty = await _empty_call(router_address)
        async with _speaking_slowly(provider_url):
            gaps = await _gaps(routed)
            of_the_provider = await _gaps(direct)
    p99, own = _at(gaps, 0.99), _at(of_the_provider, 0.99)
    return [
        at_most(
            "router alone adds to a streamed answer, p50", statistics.median(added), "ms", 2,
            f"p95 {_at(added, 0.95):.1f} ms; a call of its health check takes {empty:.1f} ms",
        ),
        at_most("router alone adds to a whole answer, p50", statistics.median(added_whole), "ms", 2),
        at_most(
            f"router alone, {STREAMS} streams of {TOKENS_PER_SECOND} tokens/s: wait for a chunk, p99", p99, "ms", 50,
            f"median {statistics.median(gaps):.0f} ms; the provider called directly: p99 {own:.0f} ms",
        ),
    ]  # fmt: skip


@asynccontextmanager
async def _routed(address: str, *, whole: bool = False) -> AsyncIterator[Ask]:
    request = router_pb2.StreamGenerateChatRequest(
        prompt=chat_pb2.ChatPrompt(
            model="scripted",
            messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=PROMPT)])],
        ),
        constraints=router_pb2.RouteConstraints(deployments=["first/scripted"], data_class=chat_pb2.DATA_CLASS_PUBLIC),
        whole=whole,
    )
    async with connect(address, RouterServiceStub, wait_seconds=20) as connected:
        stub: Any = connected

        async def ask() -> Arrivals:
            with acting_as(CALLER):
                return [time.perf_counter() async for _ in stub.StreamGenerateChat(request, timeout=60)]

        yield ask


@asynccontextmanager
async def _direct(provider_url: str) -> AsyncIterator[Ask]:
    """Call the provider as the router does, with what the router sends."""
    body = orjson.dumps(
        {
            "model": "scripted",
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def ask() -> Arrivals:
            headers = {"authorization": "Bearer sk", "content-type": "application/json"}
            async with http.post(f"{provider_url}/chat/completions", data=body, headers=headers) as response:
                assert response.status == 200
                return [time.perf_counter() async for _ in response.content.iter_any()]

        yield ask


async def _added(routed: Ask, direct: Ask) -> list[float]:
    """Milliseconds that the router adds to a whole answer, pair by pair, one request at a time."""
    added = [await _milliseconds(routed) - await _milliseconds(direct) for _ in range(PAIRS)]
    return added[PAIRS // 10 :]  # without those that warm both up


async def _empty_call(address: str) -> float:
    """Milliseconds of a call in which nothing happens: what gRPC itself takes here."""
    async with grpc.aio.insecure_channel(address) as channel:
        health: Any = HealthStub(channel)
        times = []
        for _ in range(PAIRS):
            started = time.perf_counter()
            await health.Check(health_pb2.HealthCheckRequest())
            times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


async def _milliseconds(ask: Ask) -> float:
    started = time.perf_counter()
    await ask()
    return (time.perf_counter() - started) * 1000


async def _gaps(ask: Ask) -> list[float]:
    """Milliseconds between two messages of a stream, of many streams at once."""
    streams = await asyncio.gather(*(ask() for _ in range(STREAMS)))
    return [(later - earlier) * 1000 for arrivals in streams for earlier, later in pairwise(arrivals)]


@asynccontextmanager
async def _speaking_slowly(provider_url: str) -> AsyncIterator[None]:
    """Let the provider speak at the pace of a model for the block."""
    control = provider_url.removesuffix("/v1") + "/control"
    async with aiohttp.ClientSession() as http:
        await http.post(control, json={"tokens_per_second": TOKENS_PER_SECOND, "reply_tokens": TOKENS})
        try:
            yield
        finally:
            await http.post(control, json={"reset": True})


def _at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
