"""Two routers and a real Redis between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from llmmesh.router.v1 import router_pb2
from meshkit.identity import Identity, acting_as
from services.router.sharing import CHANNEL
from tests.support.fix_redis import RedisProcess
from tests.support.router_room import RouterRoom, router_room
from tests.support.waiting import until

Pair = Callable[..., AbstractAsyncContextManager[tuple[RouterRoom, RouterRoom]]]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Run two routers with the same routes' names and clouds of their own, and one Redis."""
    monkeypatch.setenv("SCRIPTED_KEY", "sk-scripted")

    @asynccontextmanager
    async def run(redis_url: str, **settings: object) -> AsyncIterator[tuple[RouterRoom, RouterRoom]]:
        settings = {"redis_url": redis_url, "breaker_open_seconds": 60, **settings}
        async with (
            router_room(tmp_path / "one.yaml", **settings) as one,
            router_room(tmp_path / "other.yaml", **settings) as other,
        ):
            yield one, other

    return run


async def breaker(room: RouterRoom, deployment: str = "cheap") -> router_pb2.BreakerState.ValueType:
    """How the room's breaker of a deployment is."""
    with acting_as(Identity(key_id="k", roles=frozenset({"admin"}))):
        answer = await room.stub.ListProviders(router_pb2.ListProvidersRequest())
    return next(state.breaker for state in answer.providers if state.deployment.name == deployment)


async def is_open(room: RouterRoom) -> bool:
    return await breaker(room) == router_pb2.BREAKER_STATE_OPEN


async def open_at(room: RouterRoom) -> None:
    """Let the cheap cloud fail until the room's breaker opens."""
    room.cheap.set(fail_next=3)
    for _ in range(3):
        assert (await room.answer()).route.deployment == "dear"


async def timed_answer(room: RouterRoom) -> tuple[str, float]:
    began = time.monotonic()
    return (await room.answer()).route.deployment, time.monotonic() - began


async def test_what_one_router_learns_the_hard_way_the_other_hears(pair, redis_process):
    async with pair(redis_process.url) as (one, other):
        await open_at(one)
        await until(lambda: is_open(other))
        assert (await other.answer()).route.deployment == "dear"
        assert other.cheap.counters.requests == 0


async def test_good_news_travel_too(pair, redis_process):
    # The other one's wait is over with the one's: only the news spare it probes of its own.
    async with pair(redis_process.url, breaker_open_seconds=1, breaker_open_jitter=0) as (one, other):
        await open_at(one)
        await until(lambda: is_open(other))

        async def returned() -> bool:
            await one.answer()
            return await breaker(one) != router_pb2.BREAKER_STATE_OPEN and one.cheap.counters.requests >= 6

        await until(returned)

        async def back_at_the_other() -> bool:
            return await breaker(other) == router_pb2.BREAKER_STATE_RETURNING

        await until(back_at_the_other)
        assert other.cheap.counters.requests == 0


async def test_a_wait_asked_of_one_router_is_kept_by_the_other(pair, redis_process):
    async with pair(redis_process.url) as (one, other):
        one.cheap.set(fail_next=1, fail_status=429, retry_after="60")
        await one.answer()
        await until(lambda: is_open(other))


async def test_without_redis_each_router_relies_on_itself(pair, tmp_path):
    async with pair(f"unix://{tmp_path}/nobody.sock") as (one, other):
        await open_at(one)
        assert await is_open(one)
        assert (await other.answer()).route.deployment == "cheap"


async def test_a_frozen_redis_holds_up_no_request_and_news_flow_again_when_it_thaws(pair, redis_process: RedisProcess):
    async with pair(redis_process.url) as (one, other):
        await asyncio.gather(one.answer(), other.answer())
        redis_process.freeze()
        await open_at(one)
        answers = [await timed_answer(other) for _ in range(20)]
        assert {deployment for deployment, _ in answers} == {"cheap"}
        assert sorted(seconds for _, seconds in answers)[10] < 0.2
        assert await is_open(one)
        redis_process.thaw()
        await until(lambda: is_open(other))


async def test_a_redis_that_dies_and_comes_back_is_found_again(pair, redis_process: RedisProcess):
    async with pair(redis_process.url) as (one, other):
        redis_process.kill()
        await open_at(one)
        assert (await other.answer()).route.deployment == "cheap"
        redis_process.start()
        await until(lambda: is_open(other))


async def test_what_is_no_news_is_passed_over(pair, redis_process: RedisProcess, capsys):
    async with pair(redis_process.url) as (one, other), Redis.from_url(redis_process.url) as redis:

        async def heard() -> bool:
            return bool(await redis.publish(CHANNEL, b'{"news": [["cheap", "exploded", 1]]}') == 2)

        await until(heard)
        await open_at(one)
        await until(lambda: is_open(other))
    assert "breaker_news_malformed" in capsys.readouterr().out
