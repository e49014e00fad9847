"""Answers to the same question in other words, through the wire, with the embedded store."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from prometheus_client import REGISTRY

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.identity import Identity, acting_as
from tests.support.cache_calls import EXACT, SEMANTIC, answer, lookup, message, prompt, store
from tests.support.scripted_embeddings import MOST_WORDS, ScriptedEmbeddings
from tests.support.waiting import until

ASKED = "How do I reset my password?"
REWORDED = "What is the way to reset my password?"
OPPOSITE = "How do I delete my password?"


@pytest.fixture
def tenant() -> Identity:
    """A tenant of the test's own."""
    return Identity(tenant_id=f"t-{uuid.uuid4()}", key_id="k1", roles=frozenset({"operator"}))


@pytest.fixture(autouse=True)
def _alike(embeddings: ScriptedEmbeddings) -> None:
    embeddings.alike(ASKED, REWORDED, OPPOSITE)


async def test_the_same_question_in_other_words_is_answered(stub: Any, tenant: Identity) -> None:
    said = answer("Click 'forgot password'.")
    with acting_as(tenant):
        stored = await stub.StoreAnswer(store(prompt(ASKED), said))
        found = await stub.LookupAnswer(lookup(prompt(REWORDED), SEMANTIC))
    assert list(stored.levels) == [EXACT, SEMANTIC]
    assert found.answer.answer == said.answer
    assert found.similarity == pytest.approx(1, abs=1e-4)


async def test_a_question_that_is_only_similar_is_not_answered(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(ASKED)))
        found = await stub.LookupAnswer(lookup(prompt(OPPOSITE), SEMANTIC))
    assert not found.HasField("answer")
    assert not found.unavailable


async def test_of_several_similar_questions_the_one_that_asks_the_same_answers(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(OPPOSITE), answer("wrong")))
        await stub.StoreAnswer(store(prompt(ASKED), answer("right")))
        found = await stub.LookupAnswer(lookup(prompt(REWORDED), SEMANTIC))
    assert found.answer.answer.text == "right"


async def test_what_is_nearest_in_meaning_is_found_behind_many_that_are_nearer_in_words(
    stub: Any, tenant: Identity
) -> None:
    with acting_as(tenant):
        for thing in ("lamp", "phone", "router", "door", "card", "cloud", "watch", "modem", "safe", "wiki"):
            await stub.StoreAnswer(store(prompt(REWORDED.replace("password", f"{thing} password")), answer("wrong")))
        await stub.StoreAnswer(store(prompt(ASKED), answer("right")))
        found = await stub.LookupAnswer(lookup(prompt(REWORDED), SEMANTIC))
    assert found.answer.answer.text == "right"


async def test_a_question_of_too_many_tokens_is_kept_at_the_exact_level_alone(stub: Any, tenant: Identity) -> None:
    question = "Why? " * (MOST_WORDS + 1)
    with acting_as(tenant):
        assert list((await stub.StoreAnswer(store(prompt(question)))).levels) == [EXACT]
        found = await stub.LookupAnswer(lookup(prompt(question + "Please"), SEMANTIC))
    assert not found.HasField("answer")
    assert not found.unavailable


async def test_tokens_reduced_in_another_way_are_never_compared(
    stub: Any, tenant: Identity, embeddings: ScriptedEmbeddings
) -> None:
    asked, again, later = "How do I mend a lamp?", "What is the way to mend a lamp?", "How would I mend a lamp?"
    embeddings.alike(asked, again, later)
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(asked)))
        assert (await stub.LookupAnswer(lookup(prompt(again), SEMANTIC))).HasField("answer")
        embeddings.basis = "second"
        try:
            found = await stub.LookupAnswer(lookup(prompt(later), SEMANTIC))
        finally:
            embeddings.basis = "first"
    assert not found.HasField("answer")
    assert not found.unavailable


async def test_what_the_cross_encoder_doubts_is_not_answered(
    stub: Any, tenant: Identity, embeddings: ScriptedEmbeddings
) -> None:
    asked, doubted = "How do I clean a lamp?", "What is the way to clean a lamp?"
    embeddings.alike(asked, doubted)
    embeddings.doubt(doubted)
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(asked)))
        found = await stub.LookupAnswer(lookup(prompt(doubted), SEMANTIC))
    assert (doubted, asked) in embeddings.read
    assert not found.HasField("answer")
    assert not found.unavailable


async def test_a_pair_is_read_once(stub: Any, tenant: Identity, embeddings: ScriptedEmbeddings) -> None:
    asked, again = "How do I fold a map?", "What is the way to fold a map?"
    embeddings.alike(asked, again)
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(asked)))
        for _ in range(2):
            assert (await stub.LookupAnswer(lookup(prompt(again), SEMANTIC))).HasField("answer")
    assert embeddings.read.count((again, asked)) == 1


async def test_scores_of_another_cross_encoder_are_not_weighed(
    stub: Any, tenant: Identity, embeddings: ScriptedEmbeddings
) -> None:
    asked, again = "How do I oil a hinge?", "What is the way to oil a hinge?"
    embeddings.alike(asked, again)
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(asked)))
        ours, embeddings.scorer = embeddings.scorer, "another"
        try:
            found = await stub.LookupAnswer(lookup(prompt(again), SEMANTIC))
        finally:
            embeddings.scorer = ours
        assert found.unavailable
        assert not found.HasField("answer")
        await until(lambda: _answered(stub, again))


async def _answered(stub: Any, question: str) -> bool:
    return bool((await stub.LookupAnswer(lookup(prompt(question), SEMANTIC))).HasField("answer"))


async def test_a_dissimilar_question_is_a_miss(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(ASKED)))
        found = await stub.LookupAnswer(lookup(prompt("Who wrote Hamlet?"), SEMANTIC))
    assert not found.HasField("answer")


async def test_russian_questions_are_understood(stub: Any, tenant: Identity, embeddings: ScriptedEmbeddings) -> None:
    embeddings.alike("Как отменить подписку?", "как мне отменить подписку", "Как оформить подписку?")
    embeddings.doubt("Как оформить подписку?")
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt("Как отменить подписку?")))
        reworded = await stub.LookupAnswer(lookup(prompt("Подскажите, как мне отменить подписку"), SEMANTIC))
        other = await stub.LookupAnswer(lookup(prompt("Как оформить подписку?"), SEMANTIC))
    assert reworded.HasField("answer")
    assert not other.HasField("answer")


async def test_another_tenant_never_gets_the_answer(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(ASKED)))
    with acting_as(Identity(tenant_id="stranger")):
        for wording in (ASKED, REWORDED):
            found = await stub.LookupAnswer(lookup(prompt(wording), SEMANTIC))
            assert not found.HasField("answer")


@pytest.mark.parametrize(
    "other",
    [
        prompt(REWORDED, model="large"),
        prompt(REWORDED, system="Answer as a pirate."),
        prompt(REWORDED, options=chat_pb2.GenerationOptions(temperature=1)),
        prompt(REWORDED, options=chat_pb2.GenerationOptions(tools_json=["{}"])),
        prompt(messages=[message("Hello"), message("Hi", chat_pb2.ROLE_ASSISTANT), message(REWORDED)]),
        prompt(
            messages=[
                chat_pb2.ChatMessage(
                    role=chat_pb2.ROLE_USER,
                    content=[
                        chat_pb2.ContentPart(text=REWORDED),
                        chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url="https://example.org/a.png")),
                    ],
                )
            ]
        ),
    ],
    ids=["model", "system", "options", "tools", "history", "image"],
)
async def test_only_the_last_turns_wording_may_differ(stub: Any, tenant: Identity, other: chat_pb2.ChatPrompt) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(ASKED)))
        found = await stub.LookupAnswer(lookup(other, SEMANTIC))
    assert not found.HasField("answer")


async def test_an_answer_under_another_guard_policy_is_not_found(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(ASKED)))
        found = await stub.LookupAnswer(lookup(prompt(REWORDED), SEMANTIC, policy="p2"))
    assert not found.HasField("answer")


async def test_an_answer_not_meant_for_other_wordings_stays_exact(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        stored = await stub.StoreAnswer(store(prompt(ASKED), semantic=False))
        found = await stub.LookupAnswer(lookup(prompt(REWORDED), SEMANTIC))
    assert list(stored.levels) == [EXACT]
    assert not found.HasField("answer")


async def test_storing_after_a_lookup_embeds_once(stub: Any, tenant: Identity, embeddings: ScriptedEmbeddings) -> None:
    text = f"What is {uuid.uuid4()}?"
    with acting_as(tenant):
        await stub.LookupAnswer(lookup(prompt(text), SEMANTIC))
        await stub.StoreAnswer(store(prompt(text)))
    assert embeddings.asked.count(text) == 1


async def test_a_question_too_long_for_the_model_is_not_looked_up(
    stub: Any, tenant: Identity, embeddings: ScriptedEmbeddings
) -> None:
    text = "why? " * 300
    with acting_as(tenant):
        stored = await stub.StoreAnswer(store(prompt(text)))
        found = await stub.LookupAnswer(lookup(prompt(text), SEMANTIC))
    assert list(stored.levels) == [EXACT]
    assert not found.HasField("answer")
    assert text.strip() not in embeddings.asked


async def test_a_purge_forgets_both_levels_and_counts_them(stub: Any, tenant: Identity) -> None:
    with acting_as(tenant):
        await stub.StoreAnswer(store(prompt(ASKED)))
        await stub.StoreAnswer(store(prompt(ASKED, model="large")))
        purged = await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest(model="small"))
        assert (purged.exact_count, purged.semantic_count) == (1, 1)
        assert not (await stub.LookupAnswer(lookup(prompt(REWORDED), SEMANTIC))).HasField("answer")
        assert (await stub.LookupAnswer(lookup(prompt(REWORDED, model="large"), SEMANTIC))).HasField("answer")


async def test_expired_answers_are_removed_by_and_by(configure: Any, serve: Any, tmp_path: Any) -> None:
    request = store(prompt(ASKED))
    request.ttl.FromMilliseconds(1)
    swept = _swept()
    async with serve(configure(sweep_seconds=0.05, qdrant_path=tmp_path)) as stub:
        with acting_as(Identity(tenant_id="brief", key_id="k", roles=frozenset({"operator"}))):
            assert SEMANTIC in (await stub.StoreAnswer(request)).levels
            await until(lambda: _swept_more_than(swept))
            purged = await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())
    assert purged.semantic_count == 0


def _swept() -> float:
    return REGISTRY.get_sample_value("llm_cache_swept_entries_total", {"reason": "expired"}) or 0.0


async def _swept_more_than(before: float) -> bool:
    return _swept() > before


async def test_what_judges_candidates_is_loaded_before_anybody_asks(
    configure: Any, serve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ""

    async def loaded() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "verifier_loaded" in said

    async with serve(configure()):
        await until(loaded)
    assert said.count("verifier_loaded") == 1


async def test_a_service_that_may_serve_no_semantic_hit_loads_nothing_to_judge_them(
    configure: Any, serve: Any, tenant: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serve(configure(error_target=1e-6)) as stub:
        with acting_as(tenant):
            await stub.StoreAnswer(store(prompt(ASKED)))
            assert "verifier_loaded" not in capsys.readouterr().out
            found = await stub.LookupAnswer(lookup(prompt(REWORDED), SEMANTIC))
    assert not found.HasField("answer")
    assert "verifier_loaded" in capsys.readouterr().out
