"""Entries that were changed, moved or written by somebody else: a miss, an event in the audit log, soon whole again."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from llmmesh.audit.v1 import audit_pb2
from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server
from llmmesh.cache.v1 import cache_pb2
from llmmesh.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from meshkit.identity import Identity, acting_as
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings
from tests.support.cache_calls import EXACT, SEMANTIC, answer, lookup, prompt, store
from tests.support.scripted_embeddings import ScriptedEmbeddings
from tests.support.waiting import until

ACME = Identity(tenant_id="acme", key_id="k1")
RIVAL = Identity(tenant_id="rival", key_id="k2")
REQUESTS = 4000


class Books(AuditServiceServicer):
    """An audit log that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    async def RecordEvents(self, request: Any, context: Any) -> Any:
        self.events.extend(request.events)
        return audit_pb2.RecordEventsResponse()


@pytest.fixture
async def redis(redis_url: str) -> Any:
    client = Redis.from_url(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
async def audited(configure: Any, serve: Any, embeddings: ScriptedEmbeddings, books: Books) -> AsyncIterator[Any]:
    """A cache whose mesh has an audit log."""
    mounts = [
        Mount(add_InferenceServiceServicer_to_server, embeddings),
        Mount(add_AuditServiceServicer_to_server, books),
    ]
    settings = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=0)
    async with (
        running(mounts, settings, room="mesh") as port,
        serve(configure(mesh_target=f"127.0.0.1:{port}")) as stub,
    ):
        yield stub


async def test_a_changed_entry_is_a_miss_an_audit_event_and_soon_whole_again(
    audited: Any, redis: Any, books: Books
) -> None:
    with acting_as(ACME):
        await audited.StoreAnswer(store(prompt(), semantic=False))
        (key,) = await redis.keys("llmmesh:cache:*:acme:*")
        entry = await redis.get(key)
        await redis.set(key, entry.replace(b"8849", b"1234"))
        assert not (await audited.LookupAnswer(lookup(prompt()))).HasField("answer")
        await audited.StoreAnswer(store(prompt(), semantic=False))
        assert (await audited.LookupAnswer(lookup(prompt()))).answer.answer.text == "8849 m"
    await until(lambda: _told(books))
    (event,) = books.events
    assert (event.tenant_id, event.key_id, event.outcome) == ("acme", "k1", "refused")
    assert event.reason == "CACHE_ENTRY_TAMPERED"


async def _told(books: Books) -> bool:
    return bool(books.events)


async def test_an_entry_moved_to_another_key_or_tenant_is_a_miss(audited: Any, redis: Any, books: Books) -> None:
    for who in (ACME, RIVAL):
        with acting_as(who):
            await audited.StoreAnswer(store(prompt(), answer(f"of {who.tenant_id}"), semantic=False))
            await audited.StoreAnswer(store(prompt("another question"), semantic=False))
    entries = {key: await redis.get(key) for key in await redis.keys("llmmesh:cache:*")}
    foreign = list(entries.values())[1:] + list(entries.values())[:1]
    for key, entry in zip(entries, foreign, strict=True):
        await redis.set(key, entry)
    for who in (ACME, RIVAL):
        with acting_as(who):
            for question in (prompt(), prompt("another question")):
                assert not (await audited.LookupAnswer(lookup(question))).HasField("answer")
    await until(lambda: _told(books))


@pytest.mark.parametrize("entry", [b"\x01old", b"\x02old", b"", b"rubbish"])
async def test_an_entry_of_an_earlier_version_is_a_miss_and_no_alarm(
    audited: Any, redis: Any, books: Books, entry: bytes
) -> None:
    with acting_as(ACME):
        await audited.StoreAnswer(store(prompt(), semantic=False))
        (key,) = await redis.keys("llmmesh:cache:*:acme:*")
        await redis.set(key, entry)
        found = await audited.LookupAnswer(lookup(prompt()))
    assert not found.HasField("answer")
    assert not found.unavailable
    assert not books.events


async def test_another_sealing_key_makes_every_entry_a_miss(configure: Any, serve: Any, redis: Any) -> None:
    for key, hit in (("one secret of a cache", True), ("another secret of a cache", False)):
        async with serve(configure(sealing_key=key)) as stub:
            with acting_as(ACME):
                if hit:
                    await stub.StoreAnswer(store(prompt(), semantic=False))
                assert (await stub.LookupAnswer(lookup(prompt()))).HasField("answer") is hit


async def test_a_question_whose_answer_cannot_be_read_is_forgotten_when_it_is_found(
    configure: Any, serve: Any, tmp_path: Path
) -> None:
    """Asked in other words, the next answer would not take its place."""
    with acting_as(Identity(tenant_id="acme", key_id="k1", roles=frozenset({"operator"}))):
        async with serve(configure(sealing_key="one secret of a cache", qdrant_path=tmp_path)) as stub:
            assert SEMANTIC in (await stub.StoreAnswer(store(prompt()))).levels
        async with serve(configure(sealing_key="another secret of a cache", qdrant_path=tmp_path)) as stub:
            assert not (await stub.LookupAnswer(lookup(prompt(), SEMANTIC))).HasField("answer")

            async def forgotten() -> bool:
                held = await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest(dry_run=True))
                return bool(held.semantic_count == 0)

            await until(forgotten)


async def test_encrypted_answers_are_in_neither_store_to_be_read(
    configure: Any, serve: Any, redis: Any, tmp_path: Path
) -> None:
    sealed = {"qdrant_path": tmp_path, "sealing_key": "one secret of a cache"}
    said = answer("the answer is hidden")
    with acting_as(ACME):
        async with serve(configure(**sealed, encryption_key="one key of a cache")) as stub:
            assert list((await stub.StoreAnswer(store(prompt(), said))).levels) == [EXACT, SEMANTIC]
            for level in (EXACT, SEMANTIC):
                assert (await stub.LookupAnswer(lookup(prompt(), level))).answer.answer == said.answer
        (key,) = await redis.keys("llmmesh:cache:*:acme:*")
        assert b"the answer is hidden" not in await redis.get(key) + _contents(tmp_path)
        async with serve(configure(**sealed)) as stub:
            for level in (EXACT, SEMANTIC):
                assert not (await stub.LookupAnswer(lookup(prompt(), level))).HasField("answer")


def _contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_two_tenants_with_identical_prompts_share_nothing_in_thousands_of_requests(
    audited: Any, redis: Any, embeddings: ScriptedEmbeddings
) -> None:
    chance = random.Random(152)
    questions = [f"What is rule {number} of the handbook?" for number in range(12)]
    for number, question in enumerate(questions):
        embeddings.alike(question, f"Please tell me, what is rule {number} of the handbook?")
    hits = 0
    for _ in range(REQUESTS):
        tenant, number = chance.choice(("acme", "rival")), chance.randrange(12)
        level = SEMANTIC if chance.random() < 0.3 else 1
        asked = prompt(questions[number], model=chance.choice(("small", "large")))
        with acting_as(Identity(tenant_id=tenant)):
            if chance.random() < 0.1:
                await audited.StoreAnswer(store(asked, answer(f"{tenant} says {number}")))
            found = await audited.LookupAnswer(lookup(asked, level))
        if found.HasField("answer"):
            assert found.answer.answer.text == f"{tenant} says {number}"
            hits += 1
    assert hits > REQUESTS / 2
