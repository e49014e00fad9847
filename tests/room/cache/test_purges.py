"""What a purge forgets, at both levels, and what it leaves."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_info
from meshkit.identity import Identity, acting_as
from tests.support.cache_calls import SEMANTIC, answer, lookup, on_its_way, prompt, store
from tests.support.scripted_embeddings import ScriptedEmbeddings

ANN = "Ann Lee <ann@example.com>"


@pytest.fixture
def tenant() -> Identity:
    """A tenant no other test uses."""
    return Identity(tenant_id=f"t-{uuid4()}", key_id="k1", roles=frozenset({"operator"}))


def by(user: str, text: str, **fields: Any) -> chat_pb2.ChatPrompt:
    return prompt(text, options=chat_pb2.GenerationOptions(user=user), **fields)


async def purge(stub: Any, **criteria: Any) -> tuple[int, int]:
    """Count, then forget; both say the same. Returns exact and semantic counts."""
    counted = await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest(**criteria, dry_run=True))
    purged = await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest(**criteria))
    assert counted == purged
    return purged.exact_count, purged.semantic_count


async def held(stub: Any, *questions: str) -> list[str]:
    """Those of the questions that are answered, at either level."""
    answered = []
    for question in questions:
        asked = prompt(question)
        found = [await stub.LookupAnswer(lookup(asked)), await stub.LookupAnswer(lookup(asked, SEMANTIC))]
        answered += [question] if any(each.HasField("answer") for each in found) else []
    return answered


async def test_an_erasure_forgets_what_was_stored_for_a_person_and_nothing_else(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(by(ANN, "What is my plan?")))
        await stub.StoreAnswer(store(by("bob", "What is his plan?")))
        await stub.StoreAnswer(store(prompt("Whose plan is it?")))
        assert await purge(stub, subject=ANN) == (1, 1)
        left = await held(stub, "What is my plan?", "What is his plan?", "Whose plan is it?")
    assert left == ["What is his plan?", "Whose plan is it?"]


async def test_an_erasure_takes_what_was_sealed_by_another_key(
    configure: Any, serve: Any, tenant: Identity, tmp_path: Path
) -> None:
    """Nobody can say any more whose it is."""
    with acting_as(tenant):
        async with serve(configure(sealing_key="one secret of a cache", qdrant_path=tmp_path)) as stub:
            await stub.StoreAnswer(store(by(ANN, "What is my plan?")))
        async with serve(configure(sealing_key="another secret of a cache", qdrant_path=tmp_path)) as stub:
            await stub.StoreAnswer(store(by("bob", "What is his plan?")))
            assert await purge(stub, subject=ANN) == (1, 1)
            assert await held(stub, "What is his plan?") == ["What is his plan?"]


@pytest.mark.parametrize(
    "extra", [{"metadata": '{"subject":"ann"}'}, {"safety_identifier": '"ann"'}], ids=["metadata", "safety identifier"]
)
async def test_a_person_may_be_named_in_other_ways(stub: Any, tenant: Identity, extra: dict[str, str]) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(options=chat_pb2.GenerationOptions(extra_json=extra))))
        assert await purge(stub, subject="bob") == (0, 0)
        assert await purge(stub, subject="ann") == (1, 1)


@pytest.mark.parametrize("name", ["u-17", "ann", "case 4"])
async def test_of_a_person_with_several_names_each_will_do(stub: Any, tenant: Identity, name: str) -> None:
    others = {"safety_identifier": '"ann"', "metadata": '{"subject":"case 4"}'}
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(options=chat_pb2.GenerationOptions(user="u-17", extra_json=others))))
        assert await purge(stub, subject="bob") == (0, 0)
        assert await purge(stub, subject=name) == (1, 1)


async def test_an_erasure_of_one_tenant_does_not_reach_the_same_person_in_another(stub: Any, tenant: Identity) -> None:
    with acting_as(Identity(tenant_id=f"rival-{tenant.tenant_id}")):
        await stub.StoreAnswer(store(by(ANN, "What is my plan?")))
    with acting_as(tenant):
        assert await purge(stub, subject=ANN) == (0, 0)


async def test_names_of_people_are_not_written_down(stub: Any, tenant: Identity, redis_url: str) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(by(ANN, "What is my plan?")))
    async with Redis.from_url(redis_url) as redis:
        (key,) = await redis.keys(f"*{tenant.tenant_id}*")
        assert b"ann@example.com" not in await redis.get(key)


async def test_a_purge_by_the_beginning_of_the_question(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        for question in ("Refund: how long?", "Refund: how much?", "Delivery: how long?"):
            await stub.StoreAnswer(store(prompt(question)))
        assert await purge(stub, question_prefix="Refund:") == (2, 2)
        assert await held(stub, "Refund: how long?", "Delivery: how long?") == ["Delivery: how long?"]


async def test_a_purge_by_age(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt()))
        assert await purge(stub, min_age=timedelta(hours=1)) == (0, 0)
        assert await purge(stub, min_age=timedelta(0)) == (1, 1)


async def test_a_purge_of_one_entry_by_its_id(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        for question in ("one", "two"):
            await stub.StoreAnswer(store(prompt(question), answer(question)))
        entry_id = (await stub.LookupAnswer(lookup(prompt("one")))).answer.entry_id
        assert await purge(stub, entry_id=entry_id) == (1, 1)
        assert await held(stub, "one", "two") == ["two"]


async def test_an_entry_of_another_model_is_left(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt("one")))
        entry_id = (await stub.LookupAnswer(lookup(prompt("one")))).answer.entry_id
        assert await purge(stub, entry_id=entry_id, model="large") == (0, 0)
        assert await purge(stub, entry_id=entry_id, model="small") == (1, 1)


async def test_criteria_narrow_each_other(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        for model in ("small", "large"):
            for user in ("ann", "bob"):
                await stub.StoreAnswer(store(by(user, f"{model} for {user}", model=model)))
        assert await purge(stub, model="small", subject="ann", question_prefix="small") == (1, 1)
        assert await purge(stub) == (3, 3)


async def test_a_purge_of_many_by_what_they_hold(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        asked = [by("ann" if number % 3 else "bob", f"question {number}") for number in range(1500)]
        for start in range(0, 1500, 250):
            await asyncio.gather(
                *(stub.StoreAnswer(store(each, semantic=False)) for each in asked[start : start + 250])
            )
        assert await purge(stub, subject="ann") == (1000, 0)


async def test_a_new_guard_policy_makes_old_entries_unreachable_at_once(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt()))
        for level in (1, SEMANTIC):
            assert (await stub.LookupAnswer(lookup(prompt(), level))).HasField("answer")
            assert not (await stub.LookupAnswer(lookup(prompt(), level, policy="p2"))).HasField("answer")


async def test_an_answer_on_its_way_while_a_purge_runs_does_not_appear_after_it(
    stub: Any, tenant: Identity, embeddings: ScriptedEmbeddings
) -> None:
    question = f"What did {tenant.tenant_id} say?"
    with acting_as(tenant):
        async with on_its_way(stub, embeddings, question) as storing:
            await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())
        assert SEMANTIC not in (await storing).levels
        assert await held(stub, question) == []
        await stub.StoreAnswer(store(prompt(question)))
        assert await held(stub, question) == [question]


@pytest.mark.parametrize(
    "criteria",
    [{}, {"subject": ANN}, {"model": "small"}, {"question_prefix": "What"}, {"min_age": timedelta(0)}],
    ids=["all", "subject", "model", "prefix", "age"],
)
async def test_an_answer_to_a_question_asked_before_a_purge_is_not_stored_after_it(
    stub: Any, tenant: Identity, criteria: dict[str, Any]
) -> None:
    asked = Timestamp()
    asked.GetCurrentTime()
    late = store(by(ANN, "What is my plan?"), question_time=asked)
    with acting_as(tenant):
        await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest(**criteria))
        assert not (await stub.StoreAnswer(late)).levels
        assert await held(stub, "What is my plan?") == []
    with acting_as(Identity(tenant_id=f"rival-{tenant.tenant_id}")):
        assert (await stub.StoreAnswer(late)).levels


@pytest.mark.parametrize(
    "criteria",
    [{"subject": ANN}, {"model": "large"}, {"entry_id": f"small:{'0' * 48}"}, {"min_age": timedelta(hours=1)}],
    ids=["subject", "model", "entry", "age"],
)
async def test_a_purge_of_other_answers_stops_none_on_its_way(
    stub: Any, tenant: Identity, criteria: dict[str, Any]
) -> None:
    asked = Timestamp()
    asked.GetCurrentTime()
    with acting_as(tenant):
        await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest(**criteria))
        assert len((await stub.StoreAnswer(store(by("bob", "What is his plan?"), question_time=asked))).levels) == 2


async def test_an_entry_purged_by_its_id_is_not_stored_again_by_who_asked_before(stub: Any, tenant: Identity) -> None:
    asked = Timestamp()
    asked.GetCurrentTime()
    late = store(prompt(), question_time=asked)
    with acting_as(tenant):
        await stub.StoreAnswer(late)
        entry_id = (await stub.LookupAnswer(lookup(prompt()))).answer.entry_id
        assert await purge(stub, entry_id=entry_id) == (1, 1)
        assert not (await stub.StoreAnswer(late)).levels


async def test_a_purge_of_older_answers_takes_back_nothing_of_one_of_all(stub: Any, tenant: Identity) -> None:
    asked = Timestamp()
    asked.GetCurrentTime()
    with acting_as(tenant):
        await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())
        await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest(min_age=timedelta(hours=1)))
        assert not (await stub.StoreAnswer(store(prompt(), question_time=asked))).levels


@pytest.mark.parametrize(
    ("field", "criteria"),
    [
        ("question_prefix", {"question_prefix": "x" * 201}),
        ("min_age", {"min_age": timedelta(seconds=-1)}),
        ("entry_id", {"entry_id": "*"}),
    ],
)
async def test_a_mistaken_purge_names_its_field(
    stub: Any, tenant: Identity, field: str, criteria: dict[str, Any]
) -> None:
    with acting_as(tenant), pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest(**criteria))
    info = error_info(caught.value)
    assert info
    assert info.metadata["field"] == field
