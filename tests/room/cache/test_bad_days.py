"""Disks that take no more, too many entries, clocks that jump: misses, and all well afterwards."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from llmmesh.cache.v1 import cache_pb2
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceStub
from meshkit.background import in_background
from meshkit.client import connect
from meshkit.dependency import Unavailable
from services.cache.admission import Limits
from services.cache.answers import AnswerCache
from services.cache.codec import Codec
from services.cache.embedding import Embedder
from services.cache.exact import exact_store
from services.cache.scoring import Scorer
from services.cache.sealing import Seals
from services.cache.semantic import SemanticCache, SemanticLimits
from services.cache.statistics import Tally
from services.cache.vectorstores.edge import EdgeStore, edge_store
from services.cache.vectorstores.port import Dimensions, Near, Selection
from services.cache.verification.verifier import Verifier, calibrated
from tests.support.cache_calls import SEMANTIC, answer, lookup, prompt, store
from tests.support.scripted_embeddings import DIMENSIONS, ScriptedEmbeddings
from tests.support.waiting import until
from wordvectors import WordVectors

HOUR = 3600.0
START = 1_000_000_000.0


@contextmanager
def no_room(bytes_left: int) -> Iterator[None]:
    """Files of this process and of those it starts cannot grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_a_semantic_miss_until_there_is_room(tmp_path: Path) -> None:
    with no_room(1024 * 1024):
        async with edge_store(tmp_path, dimensions=Dimensions(2, 2), timeout_seconds=5) as edge:
            await until(lambda: _refuses(edge))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await until(lambda: _answers(edge))
            assert await edge.forget(Selection("acme")) == 0


async def _refuses(edge: EdgeStore) -> bool:
    return edge.owner.pid > 0 and not await _answers(edge)


async def _answers(edge: EdgeStore) -> bool:
    try:
        await edge.nearest(Near([1.0, 0.0], "acme", "c", 0.0, 0.5, 3))
    except Unavailable:
        return False
    return True


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Timed:
    """A cache and its clock."""

    cache: AnswerCache
    semantic: SemanticCache
    clock: Clock

    async def finds(self, level: Any, max_age: float | None = None) -> bool:
        request = lookup(prompt(), level)
        if max_age is not None:
            request.max_age.FromTimedelta(timedelta(seconds=max_age))
        find = self.cache.find_semantic if level == SEMANTIC else self.cache.find_exact
        return (await find("clocks", request)).answer is not None

    async def store(self) -> list[Any]:
        return await self.cache.remember("clocks", store(prompt()))


@pytest.fixture
async def timed(redis_url: str, inference_target: str, tmp_path: Path) -> AsyncIterator[Timed]:
    clock = Clock()
    async with (
        exact_store(redis_url, pool_size=2, timeout_seconds=2) as exact,
        edge_store(tmp_path, dimensions=Dimensions(DIMENSIONS, 128), timeout_seconds=5) as vectors,
        connect(inference_target, InferenceServiceStub) as inference,
        AsyncExitStack() as stack,
    ):
        await vectors.owner.serving.wait()
        embedder = Embedder(
            cast("Any", inference), model="m", dimensions=DIMENSIONS, timeout_seconds=5, kept=16, at_once=4
        )
        verifier = Verifier()
        scorer = Scorer(
            cast("Any", inference),
            model="m",
            scorer=verifier.weighing.scorer,
            timeout_seconds=5,
            kept=16,
            at_once=4,
        )
        limits = SemanticLimits(
            plausible_similarity=0.5,
            similarity_threshold=0.9,
            candidates=4,
            longest_question_characters=1000,
            most_entries=2,
            tenant_share=1,
        )
        bound = calibrated(target=0.01)
        semantic = SemanticCache(
            WordVectors.packaged(), embedder, scorer, vectors, verifier, bound, limits, clock, Tally().vetoed
        )
        await stack.enter_async_context(in_background(embedder.serve_stores()))
        kept = Limits(ttl_seconds=HOUR, longest_ttl_seconds=HOUR, largest_answer_bytes=10**6, highest_temperature=1.0)
        seals = Seals(b"a secret for a cache with a clock")
        yield Timed(
            AnswerCache(exact, semantic, seals, Codec(seals), kept, alarm=_no_alarm, clock=clock), semantic, clock
        )


async def test_of_too_many_answers_those_that_saved_least_go(timed: Timed) -> None:
    costs = {"What is dear?": 900, "What is cheap but asked often?": 400, "What is cheap?": 500}
    for question, cost in costs.items():
        said = answer(question)
        said.cost_micros = cost
        await timed.cache.remember("clocks", store(prompt(question), said))
    for _ in range(2):
        asked = lookup(prompt("What is cheap but asked often?"), SEMANTIC)
        assert (await timed.cache.find_semantic("clocks", asked)).answer is not None
    assert await timed.semantic.keep_the_best() == 1
    left = [
        question
        for question in costs
        if (await timed.cache.find_semantic("clocks", lookup(prompt(question), SEMANTIC))).answer is not None
    ]
    assert left == ["What is dear?", "What is cheap but asked often?"]


async def test_an_answer_too_old_for_who_asks_hides_no_younger_one_behind_it(
    timed: Timed, embeddings: ScriptedEmbeddings
) -> None:
    asked, reworded = "How do I reset my password?", "How can I reset my password?"
    embeddings.alike(asked, reworded)
    await timed.cache.remember("clocks", store(prompt(asked), answer("older")))
    timed.clock.now += HOUR / 2
    await timed.cache.remember("clocks", store(prompt(reworded), answer("younger")))
    again = lookup(prompt(asked), SEMANTIC)
    again.max_age.FromTimedelta(timedelta(minutes=1))
    found = (await timed.cache.find_semantic("clocks", again)).answer
    assert found is not None
    assert found.answer.text == "younger"


def _no_alarm(tenant_id: str, model: str, level: str) -> None:
    raise AssertionError(f"{level} entry of {tenant_id} taken for tampered")


async def test_a_clock_set_back_finds_what_it_stored(timed: Timed) -> None:
    assert len(await timed.store()) == 2
    timed.clock.now -= 24 * HOUR
    for level in (cache_pb2.CACHE_LEVEL_EXACT, SEMANTIC):
        assert await timed.finds(level)
        assert await timed.finds(level, max_age=60)


async def test_a_clock_set_forward_misses_what_should_have_ended_and_finds_what_is_stored_then(timed: Timed) -> None:
    await timed.store()
    timed.clock.now += 2 * HOUR
    assert not await timed.finds(SEMANTIC)
    assert not await timed.finds(cache_pb2.CACHE_LEVEL_EXACT, max_age=60)
    await timed.store()
    for level in (cache_pb2.CACHE_LEVEL_EXACT, SEMANTIC):
        assert await timed.finds(level, max_age=60)
