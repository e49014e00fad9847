"""The cache alone, over gRPC; and a crowd that asks one question at once, through the front door."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Mapping
from typing import Any

import grpc
import httpx

from tests.load.figure import Figure, at_most
from tests.load.generator import Load
from tests.load.grpc_generators import h2load
from tests.load.rpcs import read_rpc
from tests.support.fix_mesh import Tenant

ROUNDS = 3
SECONDS_PER_ROUND = 5
REQUESTS_PER_SECOND = 200
CROWD = 200
QUESTION = "What does a fox eat when everybody asks at once?"


async def lookup_figures(environment: Mapping[str, str]) -> list[Figure]:
    """An exact look-up that hits, as the gateway makes it, at a steady rate."""
    variables = {**environment, "LLMMESH_TENANT": "bench"}
    store, lookup = read_rpc("cache.before", variables), read_rpc("cache", variables)
    async with grpc.aio.insecure_channel(store.host) as channel:
        await store.call(channel)
        found: Any = await lookup.call(channel)
    assert found.HasField("answer"), found
    # One connection: several would each send at the same instants, and wait for each other.
    loads = [
        await h2load(lookup, clients=1, seconds=SECONDS_PER_ROUND, per_client_per_second=REQUESTS_PER_SECOND)
        for _ in range(ROUNDS)
    ]
    seen = f"{_median(loads, 'per_second'):.0f} req/s, {ROUNDS} rounds"
    return [
        at_most("exact look-up over gRPC, p50", _median(loads, "p50_ms"), "ms", 1, seen),
        at_most("exact look-up over gRPC, p99", _median(loads, "p99_ms"), "ms", 5),
    ]


async def crowd_figure(tenant: Tenant, provider_url: str) -> Figure:
    """How many provider calls a crowd costs that asks one new question at once."""
    before = await _provider_calls(provider_url)
    body = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": QUESTION}]})
    url = f"{tenant.mesh.url}/v1/chat/completions"
    started = time.perf_counter()
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=CROWD)) as client:
        answers = await asyncio.gather(*(client.post(url, headers=tenant.headers, content=body) for _ in range(CROWD)))
    spent = time.perf_counter() - started
    assert {answer.status_code for answer in answers} == {200}
    calls = await _provider_calls(provider_url) - before
    detail = f"all answered in {spent:.1f} s"
    return at_most(f"provider calls for {CROWD} identical questions at once", calls, "", 1, detail)


async def _provider_calls(provider_url: str) -> int:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{provider_url.removesuffix('/v1')}/control")
    calls: int = answer.json()["counters"]["requests"]
    return calls


def _median(loads: list[Load], field: str) -> float:
    return statistics.median(getattr(load, field) for load in loads)
