"""Exact answers through the wire, with a real Redis."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_reason
from meshkit.identity import NOBODY, Identity, acting_as
from services.cache.exact import exact_store
from tests.support.cache_calls import EXACT, SEMANTIC, answer, leasing, lookup, message, prompt, store

ACME = Identity(tenant_id="acme", key_id="k1", roles=frozenset({"operator"}), request_id="r1")
RIVAL = Identity(tenant_id="rival", key_id="k2", roles=frozenset({"operator"}))

ADMIN = Identity(tenant_id="house", key_id="k3", roles=frozenset({"admin"}))


@pytest.fixture(autouse=True)
async def _clean_redis(redis_url: str) -> None:
    client = Redis.from_url(redis_url)
    await client.flushall()
    await client.aclose()


@pytest.fixture
async def redis(redis_url: str) -> Any:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


async def test_a_stored_answer_comes_back_whole(stub: Any) -> None:
    said = answer("8849 m", usage=chat_pb2.TokenUsage(input_tokens=7, output_tokens=5))
    with acting_as(ACME):
        stored = await stub.StoreAnswer(store(prompt(), said, semantic=False))
        found = await stub.LookupAnswer(lookup(prompt()))
    assert list(stored.levels) == [EXACT]
    assert found.answer.answer == said.answer
    assert not found.unavailable


async def test_an_answer_says_where_it_comes_from(stub: Any) -> None:
    before = time.time()
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt(), semantic=False))
        found = (await stub.LookupAnswer(lookup(prompt()))).answer
    assert (found.request_id, found.provider, found.deployment) == ("r1", "local", "local/small")
    assert (found.model, found.guard_policy_version) == ("small", "p1")
    assert before <= found.create_time.ToNanoseconds() / 1e9 <= time.time()
    assert found.entry_id.startswith("small:")


async def test_a_question_never_asked_is_a_miss(stub: Any) -> None:
    with acting_as(ACME):
        found = await stub.LookupAnswer(lookup(prompt()))
    assert not found.HasField("answer")
    assert not found.unavailable


async def test_a_long_answer_comes_back_whole(stub: Any) -> None:
    said = answer("слово и слово " * 20_000)
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt(), said, semantic=False))
        found = await stub.LookupAnswer(lookup(prompt()))
    assert found.answer.answer == said.answer


async def test_the_end_users_name_changes_nothing(stub: Any) -> None:
    named = prompt(options=chat_pb2.GenerationOptions(user="bob"))
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt(), semantic=False))
        found = await stub.LookupAnswer(lookup(named))
    assert found.HasField("answer")


@pytest.mark.parametrize(
    "other",
    [
        prompt("How tall is Everest"),
        prompt(model="large"),
        prompt(system="Answer in feet."),
        prompt(options=chat_pb2.GenerationOptions(temperature=0)),
        prompt(options=chat_pb2.GenerationOptions(max_output_tokens=5)),
        prompt(options=chat_pb2.GenerationOptions(tools_json=["{}"])),
        prompt(options=chat_pb2.GenerationOptions(response_format_json='{"type":"json_object"}')),
        prompt(options=chat_pb2.GenerationOptions(extra_json={"n": "2"})),
        prompt(messages=[message("Hi", chat_pb2.ROLE_ASSISTANT), message("How tall is Everest?")]),
    ],
    ids=["wording", "model", "system", "temperature", "length", "tools", "format", "extra", "history"],
)
async def test_whatever_changes_the_answer_is_a_miss(stub: Any, other: chat_pb2.ChatPrompt) -> None:
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt(), semantic=False))
        found = await stub.LookupAnswer(lookup(other))
    assert not found.HasField("answer")


async def test_an_answer_under_another_guard_policy_is_not_found(stub: Any) -> None:
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt(), semantic=False))
        found = await stub.LookupAnswer(lookup(prompt(), policy="p2"))
    assert not found.HasField("answer")


async def test_tenants_with_equal_prompts_never_see_each_others_answers(stub: Any) -> None:
    chance = random.Random(5)
    tenants = [f"t{number}" for number in range(8)]
    questions = [f"question {number}" for number in range(20)]
    stored: set[tuple[str, str]] = set()
    for _ in range(400):
        tenant, question = chance.choice(tenants), chance.choice(questions)
        with acting_as(Identity(tenant_id=tenant)):
            if chance.random() < 0.3:
                await stub.StoreAnswer(store(prompt(question), answer(f"{tenant}/{question}"), semantic=False))
                stored.add((tenant, question))
            found = await stub.LookupAnswer(lookup(prompt(question)))
        expected = f"{tenant}/{question}" if (tenant, question) in stored else ""
        assert found.answer.answer.text == expected


async def test_a_tenants_name_cannot_reach_into_anothers_keys(stub: Any) -> None:
    with acting_as(Identity(tenant_id="a:b")):
        await stub.StoreAnswer(store(prompt(model="c"), semantic=False))
    with acting_as(Identity(tenant_id="a", key_id="k", roles=frozenset({"operator"}))):
        purged = await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest(model="b"))
        assert purged.exact_count == 0
    with acting_as(Identity(tenant_id="*", key_id="k", roles=frozenset({"operator"}))):
        assert (await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())).exact_count == 0


async def test_an_answer_is_kept_for_an_hour_unless_told_otherwise(stub: Any, redis: Any) -> None:
    request = store(prompt("short"), semantic=False)
    request.ttl.FromSeconds(5)
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt("long"), semantic=False))
        await stub.StoreAnswer(request)
    lives = sorted([await redis.ttl(key) for key in await redis.keys()])
    assert 0 < lives[0] <= 5
    assert 3590 < lives[1] <= 3600


@pytest.mark.parametrize(
    "data_class",
    [chat_pb2.DATA_CLASS_UNSPECIFIED, chat_pb2.DATA_CLASS_CONFIDENTIAL, chat_pb2.DATA_CLASS_SENSITIVE],
)
async def test_private_and_unclassified_answers_are_not_kept(stub: Any, redis: Any, data_class: int) -> None:
    with acting_as(ACME):
        stored = await stub.StoreAnswer(store(prompt(), data_class=data_class))
    assert not stored.levels
    assert await redis.keys("llmmesh:cache:*") == []


@pytest.mark.parametrize(
    "finish",
    [
        chat_pb2.FINISH_REASON_UNSPECIFIED,
        chat_pb2.FINISH_REASON_LENGTH,
        chat_pb2.FINISH_REASON_CONTENT_FILTER,
    ],
)
async def test_incomplete_answers_are_not_kept(stub: Any, redis: Any, finish: int) -> None:
    with acting_as(ACME):
        stored = await stub.StoreAnswer(store(prompt(), answer(finish_reason=finish)))
    assert not stored.levels
    assert await redis.keys("llmmesh:cache:*") == []


async def test_an_answer_beyond_the_size_limit_is_not_kept(configure: Any, serve: Any) -> None:
    async with serve(configure(largest_answer_bytes=100)) as stub:
        with acting_as(ACME):
            stored = await stub.StoreAnswer(store(prompt(), answer("x" * 200)))
    assert not stored.levels


async def test_tool_calls_are_kept_for_the_very_same_question_only(stub: Any) -> None:
    called = answer(
        "", finish_reason=chat_pb2.FINISH_REASON_TOOL_CALLS, tool_calls=[chat_pb2.ToolCall(id="1", name="f")]
    )
    with acting_as(ACME):
        stored = await stub.StoreAnswer(store(prompt(), called))
    assert list(stored.levels) == [EXACT]


async def test_a_damaged_entry_is_a_miss(stub: Any, redis: Any) -> None:
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt(), semantic=False))
        (key,) = await redis.keys()
        for damaged in (b"", b"\x01\xff\xff", b"\x02rubbish", b"\x09old format", b"plain text"):
            await redis.set(key, damaged)
            found = await stub.LookupAnswer(lookup(prompt()))
            assert not found.HasField("answer")


async def test_lookups_made_together_share_round_trips(redis_url: str, redis: Any) -> None:
    async with exact_store(redis_url, pool_size=2, timeout_seconds=2) as exact:
        await exact.put("k1", b"one", ttl_seconds=60, notes=["t1"], asked=time.time())
        await redis.config_resetstat()
        found = await asyncio.gather(*(exact.get(f"k{number % 4}") for number in range(200)))
    assert (await redis.info("commandstats"))["cmdstat_mget"]["calls"] == 1
    assert found == [b"one" if number % 4 == 1 else None for number in range(200)]


async def test_a_purge_forgets_the_callers_answers_and_counts_them(stub: Any) -> None:
    for who in (ACME, RIVAL):
        with acting_as(who):
            for question in ("one", "two"):
                await stub.StoreAnswer(store(prompt(question), semantic=False))
    with acting_as(ACME):
        purged = await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())
        assert purged.exact_count == 2
        assert not (await stub.LookupAnswer(lookup(prompt("one")))).HasField("answer")
    with acting_as(RIVAL):
        assert (await stub.LookupAnswer(lookup(prompt("one")))).HasField("answer")


async def test_a_purge_of_one_model_leaves_the_others(stub: Any) -> None:
    with acting_as(ACME):
        for model in ("small", "small-2", "large"):
            await stub.StoreAnswer(store(prompt(model=model), semantic=False))
        purged = await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest(model="small"))
        assert purged.exact_count == 1
        assert (await stub.LookupAnswer(lookup(prompt(model="small-2")))).HasField("answer")


async def test_a_purge_of_many_answers_reaches_all_of_them(stub: Any, redis: Any) -> None:
    with acting_as(ACME):
        for start in range(0, 3000, 50):
            await asyncio.gather(
                *(stub.StoreAnswer(store(prompt(f"q{n}"), semantic=False)) for n in range(start, start + 50))
            )
        assert len(await redis.keys("llmmesh:cache:*")) == 3000
        assert (await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())).exact_count == 3000
    assert await redis.keys("llmmesh:cache:*") == []


async def test_only_an_admin_purges_another_tenant(stub: Any) -> None:
    request = cache_pb2.PurgeAnswersRequest(tenant_id="acme")
    with acting_as(ACME):
        await stub.StoreAnswer(store(prompt(), semantic=False))
    with acting_as(RIVAL), pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.PurgeAnswers(request)
    assert error_reason(caught.value) == "ROLE_MISSING"
    with acting_as(ADMIN):
        assert (await stub.PurgeAnswers(request)).exact_count == 1


async def test_a_call_without_a_tenant_is_refused(stub: Any) -> None:
    with acting_as(NOBODY), pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.LookupAnswer(lookup(prompt()))
    assert error_reason(caught.value) == "CREDENTIAL_INVALID"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (lookup(prompt(model="")), "prompt.model"),
        (lookup(prompt(messages=[])), "prompt.messages"),
        (lookup(prompt(), level=cache_pb2.CACHE_LEVEL_UNSPECIFIED), "level"),
        (leasing(prompt(), lease=0), "lease"),
        (leasing(prompt(), wait=601), "wait"),
    ],
)
async def test_a_bad_lookup_names_its_field(stub: Any, request_: Any, field: str) -> None:
    with acting_as(ACME), pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.LookupAnswer(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (caught.value.details() or "")


@pytest.mark.parametrize("seconds", [0, -1, 10**9])
async def test_a_time_to_live_out_of_range_is_refused(stub: Any, seconds: int) -> None:
    request = store(prompt())
    request.ttl.FromSeconds(seconds)
    with acting_as(ACME), pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.StoreAnswer(request)
    assert error_reason(caught.value) == "FIELD_INVALID"


async def test_a_semantic_lookup_of_a_turn_that_is_no_text_is_a_plain_miss(stub: Any) -> None:
    result = prompt(messages=[message("42", chat_pb2.ROLE_TOOL)])
    with acting_as(ACME):
        found = await stub.LookupAnswer(lookup(result, SEMANTIC))
    assert not found.HasField("answer")
    assert not found.unavailable
