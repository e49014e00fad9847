"""What every vector store promises the semantic level; runs over each implementation."""

from __future__ import annotations

import os
import random
import uuid
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from services.cache.vectorstores.edge import edge_store
from services.cache.vectorstores.port import Dimensions, Entry, Glance, Near, Selection, VectorStore
from services.cache.vectorstores.qdrant_server import QdrantServerStore, qdrant_server_store

DIMENSIONS = 8
LENGTHS = Dimensions(accurate=DIMENSIONS, sketch=DIMENSIONS)
NOW = 1_000_000.0
TIMEOUT_SECONDS = 5.0

KINDS = ["edge", "local", *(["server"] if os.environ.get("QDRANT_URL") else [])]


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorStore]:
    async with AsyncExitStack() as stack:
        yield await _open(request.param, tmp_path, stack)


async def _open(kind: str, folder: Path, stack: AsyncExitStack) -> VectorStore:
    if kind == "edge":
        opened = await stack.enter_async_context(
            edge_store(folder, dimensions=LENGTHS, timeout_seconds=TIMEOUT_SECONDS)
        )
        await opened.owner.serving.wait()
        return opened
    collection = f"contract-{uuid.uuid4()}"
    if kind == "server":
        return await stack.enter_async_context(
            qdrant_server_store(
                os.environ["QDRANT_URL"],
                api_key=os.environ.get("QDRANT_API_KEY"),
                collection=collection,
                dimensions=LENGTHS,
                timeout_seconds=TIMEOUT_SECONDS,
            )
        )
    client = AsyncQdrantClient(":memory:")
    stack.push_async_callback(client.close)
    return QdrantServerStore(client, collection=collection, dimensions=LENGTHS, timeout_seconds=TIMEOUT_SECONDS)


@pytest.fixture(autouse=True)
def _local_mode_speaks() -> AsyncIterator[None]:
    """The client's local mode warns that it ignores payload indexes; that is no fault here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Payload indexes have no effect")
        yield


def entry(**changes: object) -> Entry:
    base = Entry(
        entry_id=str(uuid.uuid4()),
        vector=_axis(0),
        sketch=_axis(4),
        tenant_id="acme",
        model="small",
        context="c1",
        question="How tall is Everest?",
        answer=b"\x00\xff8849 m",
        expires_at=NOW + 60,
        tokens=b"basis\n\x80\x00\x7f",
    )
    return replace(base, **changes)


def near(**changes: object) -> Near:
    base = Near(vector=_axis(0), tenant_id="acme", context="c1", now=NOW, at_least=0.9, limit=3)
    return replace(base, **changes)


def glance(**changes: object) -> Glance:
    base = Glance(sketch=_axis(4), tenant_id="acme", context="c1", now=NOW, at_least=0.5, limit=3)
    return replace(base, **changes)


def _axis(number: int, lean: float = 0.0) -> list[float]:
    vector = [0.0] * DIMENSIONS
    vector[number] = 1.0
    vector[(number + 1) % DIMENSIONS] = lean
    return vector


async def test_a_stored_entry_is_found_with_its_answer_byte_for_byte(store: VectorStore) -> None:
    await store.put(entry())
    (match,) = await store.nearest(near())
    assert (match.question, match.answer) == ("How tall is Everest?", b"\x00\xff8849 m")
    assert match.tokens == b"basis\n\x80\x00\x7f"
    assert match.similarity == pytest.approx(1.0, abs=1e-5)


async def test_an_empty_store_finds_nothing(store: VectorStore) -> None:
    assert await store.nearest(near()) == []


async def test_similarity_is_the_cosine_whatever_the_length_of_the_vectors(store: VectorStore) -> None:
    await store.put(entry(vector=[3.0 * x for x in _axis(0)]))
    (match,) = await store.nearest(near(vector=_axis(0, lean=0.4), at_least=0.5))
    assert match.similarity == pytest.approx(1 / 1.16**0.5, abs=1e-4)


async def test_matches_come_best_first_and_no_more_than_asked(store: VectorStore) -> None:
    for lean in (0.3, 0.1, 0.2):
        await store.put(entry(vector=_axis(0, lean), question=str(lean)))
    assert [match.question for match in await store.nearest(near(limit=2))] == ["0.1", "0.2"]


async def test_what_is_less_similar_than_asked_is_not_found(store: VectorStore) -> None:
    await store.put(entry(vector=_axis(0, lean=1.0)))
    assert await store.nearest(near(at_least=0.9)) == []


async def test_another_tenants_entry_is_never_found(store: VectorStore) -> None:
    await store.put(entry())
    assert await store.nearest(near(tenant_id="rival")) == []


async def test_another_context_is_never_found(store: VectorStore) -> None:
    await store.put(entry())
    assert await store.nearest(near(context="c2")) == []


async def test_an_expired_entry_is_not_found(store: VectorStore) -> None:
    await store.put(entry(expires_at=NOW))
    assert await store.nearest(near()) == []
    assert len(await store.nearest(near(now=NOW - 1))) == 1


async def test_storing_an_entry_again_replaces_it(store: VectorStore) -> None:
    first = entry()
    await store.put(first)
    await store.put(replace(first, answer=b"newer"))
    assert [match.answer for match in await store.nearest(near())] == [b"newer"]


async def test_forgetting_a_tenant_leaves_the_others(store: VectorStore) -> None:
    await store.put(entry())
    await store.put(entry(model="large"))
    await store.put(entry(tenant_id="rival"))
    assert await store.forget(Selection("acme")) == 2
    assert await store.nearest(near()) == []
    assert len(await store.nearest(near(tenant_id="rival"))) == 1
    assert await store.forget(Selection("acme")) == 0


async def test_forgetting_a_model_leaves_the_tenants_other_models(store: VectorStore) -> None:
    await store.put(entry())
    await store.put(entry(model="large", question="kept"))
    assert await store.forget(Selection("acme", model="small")) == 1
    assert [match.question for match in await store.nearest(near())] == ["kept"]


@pytest.mark.parametrize(
    "selection",
    [
        Selection("acme", question_prefix="How t"),
        Selection("acme", subject="ann"),
        Selection("acme", subject="u-17"),
        Selection("acme", reference="small:1"),
        Selection("acme", stored_until=NOW - 5),
        Selection("acme", sealed_by_others_than="k2"),
        Selection("acme", model="small", question_prefix="How", subject="ann", reference="small:1", stored_until=NOW),
    ],
    ids=["prefix", "subject", "other name", "reference", "age", "key", "all"],
)
async def test_a_selection_is_counted_and_then_forgotten_and_nothing_else(
    store: VectorStore, selection: Selection
) -> None:
    chosen = entry(subject="ann u-17", reference="small:1", stored_at=NOW - 10, sealed_by="k1")
    await store.put(chosen)
    kept = replace(chosen, question="Anything else?", subject="bob", reference="small:2", stored_at=NOW - 1)
    await store.put(replace(kept, sealed_by="k2", entry_id=str(uuid.uuid4())))
    await store.put(replace(chosen, tenant_id="rival", entry_id=str(uuid.uuid4())))
    assert await store.forget(selection, dry_run=True) == 1
    assert len(await store.nearest(near())) == 2
    assert await store.forget(selection) == 1
    assert [match.question for match in await store.nearest(near())] == ["Anything else?"]
    assert len(await store.nearest(near(tenant_id="rival"))) == 1


async def test_when_there_are_too_many_those_worth_least_go(store: VectorStore) -> None:
    entries = [entry(question=str(worth), worth=float(worth)) for worth in (5, 1, 4, 2, 3)]
    for each in entries:
        await store.put(each)
    assert await store.forget_cheapest(5, share=5) == 0
    await store.reprice({entries[1].entry_id: 9.0, str(uuid.uuid4()): 7.0})
    assert await store.forget_cheapest(3, share=5) == 2
    left = {match.question: match.worth for match in await store.nearest(near(limit=9))}
    assert left == {"1": 9.0, "4": 4.0, "5": 5.0}


async def test_a_tenant_with_more_than_its_share_makes_room_before_others_do(store: VectorStore) -> None:
    async def left(tenant_id: str) -> set[str]:
        return {match.question for match in await store.nearest(near(tenant_id=tenant_id, limit=9))}

    for worth in (6, 9, 7, 8):
        await store.put(entry(question=str(worth), worth=float(worth)))
    await store.put(entry(tenant_id="rival", question="cheap", worth=1.0))
    assert await store.forget_cheapest(5, share=2) == 0
    assert await store.forget_cheapest(4, share=2) == 1
    assert (await left("acme"), await left("rival")) == ({"7", "8", "9"}, {"cheap"})
    assert await store.forget_cheapest(2, share=2) == 2
    assert (await left("acme"), await left("rival")) == ({"8", "9"}, set())


async def test_forgetting_the_expired_leaves_what_is_valid(store: VectorStore) -> None:
    await store.put(entry(expires_at=NOW - 1))
    await store.put(entry(expires_at=NOW + 1))
    assert await store.forget_expired(NOW) == 1
    assert len(await store.nearest(near(now=NOW - 10))) == 1


async def test_names_with_quotes_and_other_scripts_are_only_names(store: VectorStore) -> None:
    odd = 'тенант "1" OR *'
    await store.put(entry(tenant_id=odd, question="Сколько? \U0001f600"))
    assert [match.question for match in await store.nearest(near(tenant_id=odd))] == ["Сколько? \U0001f600"]
    assert await store.forget(Selection(odd)) == 1


async def test_random_tenants_with_equal_questions_share_nothing(store: VectorStore) -> None:
    chance = random.Random(7)
    for number in range(60):
        tenant_id = f"t{number % 6}"
        await store.put(entry(tenant_id=tenant_id, answer=tenant_id.encode(), vector=_axis(0, chance.random() / 4)))
    for tenant_id in (f"t{number}" for number in range(6)):
        matches = await store.nearest(near(tenant_id=tenant_id, limit=50))
        assert {match.answer for match in matches} == {tenant_id.encode()}
        assert len(matches) == 10


async def test_what_may_ask_the_same_is_found_by_its_sketch_best_first(store: VectorStore) -> None:
    for lean in (0.6, 0.2, 3.0, 0.4):
        await store.put(entry(sketch=_axis(4, lean), question=str(lean)))
    found = await store.plausible(glance())
    assert [plausible.question for plausible in found] == ["0.2", "0.4", "0.6"]
    assert found[0].similarity == pytest.approx(1 / 1.04**0.5, abs=0.01)


async def test_sketches_of_other_tenants_contexts_and_times_are_never_found(store: VectorStore) -> None:
    await store.put(entry(expires_at=NOW + 1))
    for elsewhere in (glance(tenant_id="rival"), glance(context="c2"), glance(now=NOW + 1), glance(sketch=_axis(2))):
        assert await store.plausible(elsewhere) == []
    assert len(await store.plausible(glance())) == 1


async def test_an_entry_stored_again_has_its_newer_sketch_alone(store: VectorStore) -> None:
    first = entry()
    await store.put(first)
    await store.put(replace(first, sketch=_axis(2)))
    assert await store.plausible(glance()) == []
    assert [found.entry_id for found in await store.plausible(glance(sketch=_axis(2)))] == [first.entry_id]


async def test_what_was_forgotten_is_not_plausible(store: VectorStore) -> None:
    await store.put(entry())
    await store.put(entry(expires_at=NOW - 1))
    assert await store.forget_expired(NOW) == 1
    assert await store.forget(Selection("acme")) == 1
    assert await store.plausible(glance()) == []


async def test_only_the_entries_asked_for_are_compared(store: VectorStore) -> None:
    kept, other = entry(), entry()
    await store.put(kept)
    await store.put(other)
    assert [match.entry_id for match in await store.nearest(near(among=[kept.entry_id]))] == [kept.entry_id]
    assert await store.nearest(near(among=[kept.entry_id], tenant_id="rival")) == []
