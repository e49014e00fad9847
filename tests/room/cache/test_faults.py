"""The cache while something it stands on is frozen, killed or away: a miss, soon, and all well afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from llmmesh.cache.v1 import cache_pb2
from meshkit.dependency import Unavailable
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from services.cache.vectorstores.edge import EdgeStore, edge_store
from services.cache.vectorstores.port import Dimensions, Entry, Near
from tests.support.cache_calls import EXACT, SEMANTIC, leasing, lookup, prompt, store
from tests.support.fix_redis import RedisProcess
from tests.support.scripted_embeddings import ScriptedEmbeddings
from tests.support.waiting import until

ACME = Identity(tenant_id="acme", key_id="k1", roles=frozenset({"operator"}))
DEADLINE_SECONDS = 0.2


async def _finds(stub: Any, level: cache_pb2.CacheLevel.ValueType = EXACT) -> bool:
    return bool((await stub.LookupAnswer(lookup(prompt(), level))).HasField("answer"))


async def _stores(stub: Any, level: cache_pb2.CacheLevel.ValueType) -> bool:
    return level in (await stub.StoreAnswer(store(prompt()))).levels


async def test_a_frozen_redis_costs_one_deadline_and_then_nothing(
    configure: Any, serve: Any, redis_process: RedisProcess
) -> None:
    config = configure(redis_url=redis_process.url, redis_timeout_seconds=DEADLINE_SECONDS)
    async with serve(config) as stub:
        with acting_as(ACME):
            await until(lambda: _stores(stub, EXACT))
            redis_process.freeze()
            first = await _timed(stub)
            rest = [await _timed(stub) for _ in range(20)]
            redis_process.thaw()
            await until(lambda: _finds(stub))
    assert DEADLINE_SECONDS * 0.9 < first < DEADLINE_SECONDS + 0.5
    assert sorted(rest)[len(rest) // 2] < DEADLINE_SECONDS / 2


async def test_a_frozen_redis_takes_nothing_from_the_semantic_level(
    configure: Any, serve: Any, redis_process: RedisProcess, embeddings: ScriptedEmbeddings
) -> None:
    asked, reworded = "How do I thaw a fish?", "What is the way to thaw a fish?"
    embeddings.alike(asked, reworded)
    async with serve(configure(redis_url=redis_process.url)) as stub:
        with acting_as(ACME):
            await until(lambda: _stores(stub, EXACT))
            assert SEMANTIC in (await stub.StoreAnswer(store(prompt(asked)))).levels
            redis_process.freeze()
            found = await stub.LookupAnswer(lookup(prompt(reworded), SEMANTIC))
            redis_process.thaw()
    assert found.HasField("answer")


async def test_a_frozen_redis_holds_up_no_crowd(configure: Any, serve: Any, redis_process: RedisProcess) -> None:
    config = configure(redis_url=redis_process.url, redis_timeout_seconds=DEADLINE_SECONDS)
    async with serve(config) as stub:
        with acting_as(ACME):
            await until(lambda: _stores(stub, EXACT))
            redis_process.freeze()
            started = time.monotonic()
            found = await asyncio.gather(*(stub.LookupAnswer(lookup(prompt(f"q{n}"))) for n in range(50)))
            spent = time.monotonic() - started
            redis_process.thaw()
    assert all(answer.unavailable for answer in found)
    assert spent < DEADLINE_SECONDS + 3


async def test_a_killed_redis_is_found_again_when_it_is_back(
    configure: Any, serve: Any, redis_process: RedisProcess
) -> None:
    async with serve(configure(redis_url=redis_process.url)) as stub:
        with acting_as(ACME):
            await until(lambda: _stores(stub, EXACT))
            redis_process.kill()
            found = await stub.LookupAnswer(lookup(prompt()))
            stored = await stub.StoreAnswer(store(prompt()))
            assert found.unavailable
            assert EXACT not in stored.levels
            redis_process.start()
            await until(lambda: _stores(stub, EXACT))
            assert await _finds(stub)


async def test_what_a_purge_may_have_forbidden_is_not_kept_while_redis_cannot_tell(
    configure: Any, serve: Any, redis_process: RedisProcess
) -> None:
    question = prompt("Who may have purged this?")
    async with serve(configure(redis_url=redis_process.url)) as stub:
        with acting_as(ACME):
            await until(lambda: _stores(stub, EXACT))
            redis_process.kill()
            assert list((await stub.StoreAnswer(store(question))).levels) == []
            assert not (await stub.LookupAnswer(lookup(question, SEMANTIC))).HasField("answer")


async def test_a_full_redis_takes_no_answers_but_gives_those_it_has(
    configure: Any, serve: Any, redis_process: RedisProcess
) -> None:
    async with serve(configure(redis_url=redis_process.url)) as stub, Redis.from_url(redis_process.url) as redis:
        with acting_as(ACME):
            await until(lambda: _stores(stub, EXACT))
            await redis.config_set("maxmemory", 1)
            for _ in range(5):
                assert not await _stores(stub, EXACT)
                assert await _finds(stub)
                missed = await stub.LookupAnswer(leasing(prompt("never asked")))
                assert (missed.unavailable, missed.lease_id) == (False, "")
            await redis.config_set("maxmemory", 0)
            assert await _stores(stub, EXACT)


async def test_a_purge_says_so_when_redis_is_away(configure: Any, serve: Any, redis_process: RedisProcess) -> None:
    async with serve(configure(redis_url=redis_process.url)) as stub:
        redis_process.kill()
        with acting_as(ACME), pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())
    assert error_reason(caught.value) == "DEPENDENCY_UNAVAILABLE"


async def test_embeddings_away_is_a_semantic_miss_that_says_so(
    configure: Any, serve: Any, embeddings: ScriptedEmbeddings
) -> None:
    async with serve(configure()) as stub:
        with acting_as(ACME):
            await stub.StoreAnswer(store(prompt("How do I embed a map?")))
            embeddings.warming = True
            found = await stub.LookupAnswer(lookup(prompt(PLAUSIBLE), SEMANTIC))
            nothing_plausible = await stub.LookupAnswer(lookup(prompt("Who wrote Hamlet?"), SEMANTIC))
            stored = await stub.StoreAnswer(store(prompt("never embedded")))
            embeddings.warming = False
            assert found.unavailable
            assert not nothing_plausible.unavailable
            assert list(stored.levels) == [EXACT]
            await until(lambda: _finds_nothing_available(stub))


PLAUSIBLE = "What is the way to embed a map?"


async def _finds_nothing_available(stub: Any) -> bool:
    return not (await stub.LookupAnswer(lookup(prompt(PLAUSIBLE), SEMANTIC))).unavailable


async def test_a_killed_store_owner_is_replaced_and_has_lost_nothing(edge: EdgeStore) -> None:
    for number in range(50):
        await edge.put(_entry(number))
    killed = edge.owner.pid
    os.kill(killed, signal.SIGKILL)
    await until(lambda: _replaced(edge, killed))
    assert len(await edge.nearest(_near(limit=100))) == 50


async def _replaced(edge: EdgeStore, killed: int) -> bool:
    await edge.owner.serving.wait()
    return edge.owner.pid != killed


async def test_a_frozen_store_owner_costs_one_deadline_and_then_nothing(tmp_path: Path) -> None:
    async with edge_store(tmp_path, dimensions=Dimensions(2, 2), timeout_seconds=DEADLINE_SECONDS) as edge:
        await edge.owner.serving.wait()
        os.kill(edge.owner.pid, signal.SIGSTOP)
        first, second = await _refused(edge), await _refused(edge)
        os.kill(edge.owner.pid, signal.SIGCONT)
        await until(lambda: _answers(edge))
    assert DEADLINE_SECONDS * 0.9 < first < DEADLINE_SECONDS + 0.5
    assert second < DEADLINE_SECONDS / 2


async def test_a_second_owner_of_the_folder_is_told_who_holds_it(edge: EdgeStore, tmp_path: Path) -> None:
    async with edge_store(tmp_path, dimensions=Dimensions(2, 2), timeout_seconds=1) as second:
        await until(lambda: _says(second, f"held by process {edge.owner.pid}"))
    assert await _answers(edge)


async def _says(edge: EdgeStore, text: str) -> bool:
    try:
        await edge.nearest(_near())
    except Unavailable as error:
        return text in str(error)
    return False


@pytest.fixture
async def edge(tmp_path: Path) -> Any:
    async with edge_store(tmp_path, dimensions=Dimensions(2, 2), timeout_seconds=5) as store:
        await store.owner.serving.wait()
        yield store


async def _answers(edge: EdgeStore) -> bool:
    try:
        await edge.nearest(_near())
    except Unavailable:
        return False
    return True


async def _refused(edge: EdgeStore) -> float:
    started = time.monotonic()
    with pytest.raises(Unavailable):
        await edge.nearest(_near())
    return time.monotonic() - started


async def _timed(stub: Any) -> float:
    started = time.monotonic()
    found = await stub.LookupAnswer(lookup(prompt()))
    assert found.unavailable
    return time.monotonic() - started


def _entry(number: int) -> Entry:
    return Entry(
        f"00000000-0000-0000-0000-{number:012}", [1.0, 0.0], [1.0, 0.0], "acme", "m", "c", f"q{number}", b"a", 2e9
    )


def _near(limit: int = 3) -> Near:
    return Near([1.0, 0.0], "acme", "c", 0.0, 0.5, limit)
