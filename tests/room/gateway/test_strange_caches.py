"""A cache that is half away, or that has answers of deployments which are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llmmesh.cache.v1 import cache_pb2
from tests.support.cache_calls import answer
from tests.support.gateway_room import Front, Tenant, second_gateway
from tests.support.scripted_cache import Answered, scripted_cache

AWAY = Answered(unavailable=True)
CROWD = 20


def answered(deployment: str, provider: str = "first") -> Answered:
    """A hit that was this deployment's answer."""
    said = cache_pb2.CachedAnswer()
    said.CopyFrom(answer())
    said.deployment, said.provider = deployment, provider
    return Answered(answer=said, similarity=0.95)


@asynccontextmanager
async def beside(
    tenant: Tenant, exact: Answered | None = None, semantic: Answered | None = None
) -> AsyncIterator[Tenant]:
    """The tenant at a gateway with a cache that answers so."""
    async with (
        scripted_cache(exact, semantic) as target,
        second_gateway(tenant.front, cache_target=target, cache_timeout_seconds=5) as gateway,
    ):
        yield Tenant(gateway, tenant.identity, tenant.request_ids)  # of which none may come twice


async def test_while_redis_is_away_the_semantic_level_answers(tenant: Tenant, front: Front) -> None:
    async with beside(tenant, exact=AWAY, semantic=answered("first/m")) as asking:
        reply = await asking.chat("How tall is Everest?")
    assert (reply.headers["x-llmmesh-cache"], front.first.counters.requests) == ("semantic", 0)


async def test_while_both_levels_are_away_a_model_answers_and_says_so(tenant: Tenant, front: Front) -> None:
    async with beside(tenant, exact=AWAY, semantic=AWAY) as asking:
        reply = await asking.chat("How tall is Everest?")
    assert (reply.headers["x-llmmesh-cache"], front.first.counters.requests) == ("unavailable", 1)


@pytest.mark.parametrize(
    ("deployment", "provider", "status"),
    [("first/m", "first", "hit"), ("import/m", "import", "hit"), ("first/gone", "first", "miss")],
)
async def test_only_of_a_deployment_that_may_answer_now_answers_are_given_again(
    tenant: Tenant, deployment: str, provider: str, status: str
) -> None:
    kept = answered(deployment, provider)
    async with beside(tenant, exact=kept) as asking:
        exact = await asking.chat("How tall is Everest?")
    async with beside(tenant, semantic=kept) as asking:
        semantic = await asking.chat("How tall is Everest?")
    found = [reply.headers["x-llmmesh-cache"] for reply in (exact, semantic)]
    assert found == (["exact", "semantic"] if status == "hit" else ["miss", "miss"])


async def test_an_answer_of_a_deployment_that_the_tenant_may_not_use_any_more_is_not_given(front: Front) -> None:
    choosy = await front.tenant(allowed_deployments=["second/m"])
    async with beside(choosy, exact=answered("first/m")) as asking:
        reply = await asking.chat("How tall is Everest?")
    assert (reply.headers["x-llmmesh-cache"], front.second.counters.requests) == ("miss", 1)


async def test_a_crowd_that_finds_an_answer_of_nobody_is_one_model_call(tenant: Tenant, front: Front) -> None:
    front.first.set(ttft_ms=300)
    async with beside(tenant, exact=answered("first/gone")) as asking:
        await asyncio.gather(*(asking.chat("How tall is Everest?") for _ in range(CROWD)))
    assert front.first.counters.requests == 1
