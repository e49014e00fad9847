"""The sole right to answer: one of many who miss gets it, the others get the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from llmmesh.cache.v1 import cache_pb2
from meshkit.identity import Identity, acting_as
from tests.support.cache_calls import answer, leasing, prompt, store

ACME = Identity(tenant_id="acme")
RIVAL = Identity(tenant_id="rival")


@pytest.fixture(autouse=True)
async def redis(redis_url: str) -> Any:
    client = Redis.from_url(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


async def test_of_many_who_miss_at_once_one_may_answer(stub: Any) -> None:
    with acting_as(ACME):
        found = await asyncio.gather(*(stub.LookupAnswer(leasing(prompt())) for _ in range(50)))
    assert sum(bool(each.lease_id) for each in found) == 1
    assert sum(each.leased_elsewhere for each in found) == 49


async def test_who_waits_gets_the_answer_of_who_leads(stub: Any) -> None:
    with acting_as(ACME):
        lease_id = (await stub.LookupAnswer(leasing(prompt()))).lease_id
        waiting = asyncio.gather(*(stub.LookupAnswer(leasing(prompt(), wait=20)) for _ in range(5)))
        await stub.StoreAnswer(store(prompt(), semantic=False, lease_id=lease_id))
        found = await waiting
    assert [each.answer.answer.text for each in found] == ["8849 m"] * 5


async def test_a_lease_given_back_goes_to_one_of_those_who_wait(stub: Any) -> None:
    with acting_as(ACME):
        lease_id = (await stub.LookupAnswer(leasing(prompt()))).lease_id
        waiting = asyncio.gather(*(stub.LookupAnswer(leasing(prompt(), wait=1)) for _ in range(5)))
        await stub.ReleaseLease(cache_pb2.ReleaseLeaseRequest(lease_id=lease_id))
        found = await waiting
    assert sum(bool(each.lease_id) for each in found) == 1
    assert all(each.lease_id != lease_id for each in found)


async def test_a_lease_whose_holder_died_ends_by_itself(stub: Any) -> None:
    with acting_as(ACME):
        await stub.LookupAnswer(leasing(prompt(), lease=0.05))
        found = await stub.LookupAnswer(leasing(prompt(), wait=20))
    assert found.lease_id


@pytest.mark.parametrize("flaw", ["damaged", "too old"])
async def test_where_there_is_only_an_answer_of_no_use_one_may_answer_too(stub: Any, redis: Any, flaw: str) -> None:
    asked = leasing(prompt())
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt(), semantic=False))
        if flaw == "damaged":
            (key,) = await redis.keys("llmmesh:cache:*")
            await redis.set(key, b"no entry", keepttl=True)
        else:
            asked.max_age.nanos = 1
        found = await asyncio.gather(*(stub.LookupAnswer(asked) for _ in range(20)))
        (lease_id,) = [each.lease_id for each in found if each.lease_id]
        assert sum(each.leased_elsewhere for each in found) == 19
        asked.wait.seconds, asked.max_age.seconds = 20, 60
        waiting = asyncio.gather(*(stub.LookupAnswer(asked) for _ in range(5)))
        await stub.StoreAnswer(store(prompt(), answer("8850 m"), semantic=False, lease_id=lease_id))
        assert {each.answer.answer.text for each in await waiting} <= {"8849 m", "8850 m"}
        assert (await stub.LookupAnswer(asked)).answer.answer.text == "8850 m"


async def test_a_lease_is_given_back_by_its_holder_alone(stub: Any) -> None:
    with acting_as(ACME):
        lease_id = (await stub.LookupAnswer(leasing(prompt()))).lease_id
        for other in (lease_id[:-1] + "x", "", "small:x/y"):
            await stub.ReleaseLease(cache_pb2.ReleaseLeaseRequest(lease_id=other))
    with acting_as(RIVAL):
        await stub.ReleaseLease(cache_pb2.ReleaseLeaseRequest(lease_id=lease_id))
        assert (await stub.LookupAnswer(leasing(prompt()))).lease_id
    with acting_as(ACME):
        assert (await stub.LookupAnswer(leasing(prompt()))).leased_elsewhere


async def test_a_refused_answer_gives_its_lease_back_all_the_same(stub: Any) -> None:
    with acting_as(ACME):
        lease_id = (await stub.LookupAnswer(leasing(prompt()))).lease_id
        await stub.StoreAnswer(store(prompt(), answer(""), lease_id=lease_id))
        assert (await stub.LookupAnswer(leasing(prompt()))).lease_id


async def test_a_hit_needs_one_command_although_a_lease_is_asked_for(stub: Any, redis: Any) -> None:
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt(), semantic=False))
        await redis.config_resetstat()
        await stub.LookupAnswer(leasing(prompt()))
    commands = await redis.info("commandstats")
    assert {name: stat["calls"] for name, stat in commands.items() if "mget" in name or "eval" in name} == {
        "cmdstat_mget": 1
    }
