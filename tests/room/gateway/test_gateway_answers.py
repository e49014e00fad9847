"""One question through real rooms: who is asked, what comes back, what is written down."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import openai_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.identity import acting_as
from tests.support.billing_room import ADMIN
from tests.support.gateway_room import CALL_SECONDS, Front, Tenant, audit_events, eventually

FOX = "The quick brown fox jumps over the lazy dog."


async def stored(tenant: Tenant, text: str) -> Any:
    """Ask until the answer comes from the cache."""

    async def hit() -> Any:
        reply = await tenant.chat(text)
        return reply if reply.headers["x-llmmesh-cache"] == "exact" else None

    return await eventually(hit)


async def test_an_answer_is_told_paid_for_and_written_down(tenant: Tenant) -> None:
    reply = await tenant.chat("Tell me about foxes.")
    assert reply.json["choices"][0]["message"]["content"] == FOX
    (row,) = await tenant.usage(rows=1)
    (event,) = await audit_events(tenant, rows=1)
    usage = reply.json["usage"]
    assert row.request_id == event.request_id == reply.headers["x-request-id"] == tenant.request_ids[0]
    assert (row.usage.input_tokens, row.usage.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert float(reply.headers["x-llmmesh-cost"].split()[0]) == row.cost_micros / 1e6 > 0
    assert reply.json["llmmesh"]["cost"] == row.cost_micros / 1e6
    assert (event.outcome, event.cache_status, event.deployment) == ("answered", "miss", "first/m")
    assert event.guard_policy_version == "v1"
    assert await tenant.held_micros() == 0


@pytest.mark.parametrize(
    ("policy", "deployment"),
    [
        ({"tier": chat_pb2.TIER_FREE}, "first/m"),
        ({"tier": chat_pb2.TIER_ENTERPRISE}, "second/m"),
        (
            {"tier": chat_pb2.TIER_ENTERPRISE, "routing_strategy": chat_pb2.ROUTING_STRATEGY_CHEAPEST},
            "first/m",
        ),
    ],
)
async def test_the_tenants_tier_and_strategy_decide_who_answers(
    front: Front, policy: dict[str, Any], deployment: str
) -> None:
    served = await front.tenant(**policy)
    await served.chat("Who answers me?")
    (row,) = await served.usage(rows=1)
    assert row.deployment == deployment


async def test_the_second_asking_costs_nothing_and_asks_no_provider(tenant: Tenant, front: Front) -> None:
    await tenant.chat("What does a fox eat?")
    hit = await stored(tenant, "What does a fox eat?")
    asked = front.first.counters.requests
    hit = await tenant.chat("What does a fox eat?")
    assert hit.json["choices"][0]["message"]["content"] == FOX
    assert (hit.headers["x-llmmesh-cost"], hit.headers["x-llmmesh-provider"]) == ("0 RUB", "first")
    assert front.first.counters.requests == asked

    async def free_rows() -> list[Any]:
        return [row for row in await tenant.front.billing.usage(tenant.identity) if row.cache_status == "exact"]

    rows = await eventually(free_rows)
    assert all(row.cost_micros == 0 and row.saved_micros > 0 for row in rows)


async def test_a_cached_answer_is_replayed_as_a_stream(tenant: Tenant) -> None:
    await stored(tenant, "Replay me.")
    reply = await tenant.chat("Replay me.", stream=True, stream_options={"include_usage": True})
    assert reply.headers["x-llmmesh-cache"] == "exact"
    assert (reply.text, reply.events[-1]) == (FOX, "[DONE]")
    assert reply.events[-2]["llmmesh"]["cost"] == 0


async def test_a_stream_tells_its_cost_at_its_end(tenant: Tenant) -> None:
    reply = await tenant.chat("Stream me.", stream=True, stream_options={"include_usage": True})
    (row,) = await tenant.usage(rows=1)
    assert reply.text == FOX
    assert reply.events[-2]["usage"]["completion_tokens"] == row.usage.output_tokens
    assert reply.events[-2]["llmmesh"]["cost"] == row.cost_micros / 1e6
    assert "x-llmmesh-cost" not in reply.headers


@pytest.mark.parametrize("headers", [{"x_llmmesh_cache": "bypass"}, {"cache_control": "no-cache"}])
async def test_a_caller_may_bypass_the_cache(tenant: Tenant, front: Front, headers: dict[str, str]) -> None:
    for _ in range(2):
        reply = await tenant.chat("Never remember me.", headers=headers)
        assert reply.headers["x-llmmesh-cache"] == "bypass"
    assert front.first.counters.requests == 2


async def test_a_tenant_without_a_cache_bypasses_it(front: Front) -> None:
    tenant = await front.tenant(cache=tenant_pb2.CACHE_POLICY_OFF)
    assert (await tenant.chat("Nothing is kept.")).headers["x-llmmesh-cache"] == "bypass"


async def test_another_policy_of_the_guard_finds_none_of_the_old_answers(tenant: Tenant, front: Front) -> None:
    await stored(tenant, "Judged by the old rules.")
    front.guard.policy_version = "v2"

    async def missed() -> bool:
        return (await tenant.chat("Judged by the old rules.")).headers["x-llmmesh-cache"] == "miss"

    await eventually(missed)


async def test_bytes_we_do_not_model_reach_the_provider(tenant: Tenant, front: Front) -> None:
    tool = '{"type":"function","function":{"name":"w","parameters":{"z":{"maximum":9007199254740993,"x":5.0},"a":{}}}}'
    body = '{"model":"m","messages":[{"role":"user","content":"Weather?"}],"tools":[' + tool + '],"top_k":40}'
    call = tenant.call(body.encode())
    answer = orjson.loads(b"".join([message.data async for message in call]))
    sent = front.first.requests[-1].body.decode().replace(" ", "")
    assert tool in sent
    assert '"top_k":40' in sent
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "w"
    assert tool in str(front.guard.prompts[-1]).replace('\\"', '"')


async def test_the_short_form_is_answered_in_short(tenant: Tenant) -> None:
    call = tenant.call(b'{"prompt":"Explain quantum computing in simple terms","model":"m","stream":false}')
    said = orjson.loads(b"".join([message.data async for message in call]))
    assert (said["content"], said["provider"], said["cached"]) == (FOX, "first", False)


async def test_a_forbidden_prompt_is_refused_and_costs_nothing(tenant: Tenant, front: Front) -> None:
    assert await tenant.failure("say the forbidden") == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_BLOCKED")
    (event,) = await audit_events(tenant, rows=1)
    assert (event.outcome, list(event.guard_rules)) == ("blocked", ["words.forbidden"])
    assert (front.first.counters.requests, await tenant.held_micros()) == (0, 0)


async def test_confidential_data_leaves_no_trace_in_the_cache_and_reaches_no_cloud(
    tenant: Tenant, front: Front
) -> None:
    refused = await tenant.failure("confidential plan")
    assert refused == (grpc.StatusCode.PERMISSION_DENIED, "REGION_NOT_ALLOWED")
    assert front.first.counters.requests + front.second.counters.requests == 0
    await tenant.nothing_held()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_the_guard_stops_ends_the_provider_and_is_billed_for_what_was_said(
    tenant: Tenant, front: Front, stream: bool
) -> None:
    front.first.set(reply="Of course. The forbidden word is here. " + "More. " * 500, tokens_per_second=100)
    reply = await tenant.chat(f"Say it, {stream}.", stream=stream)
    assert b"content_filter" in b"".join(reply.bodies)
    assert b"forbidden" not in b"".join(reply.bodies)
    await front.first.until(lambda now: now.aborted_streams == 1)
    (row,) = await tenant.usage(rows=1)
    assert (row.finish_reason, row.usage.estimated) == (chat_pb2.FINISH_REASON_CONTENT_FILTER, True)
    (event,) = await audit_events(tenant, rows=1)
    assert event.outcome == "stopped"


async def test_a_caller_who_hangs_up_stops_the_provider_and_is_billed_for_what_it_got(
    tenant: Tenant, front: Front
) -> None:
    front.first.set(reply_tokens=5000, tokens_per_second=100)
    body = {"model": "m", "messages": [{"role": "user", "content": "Talk on."}], "stream": True}
    call = tenant.call(orjson.dumps(body))
    await call.read()
    call.cancel()
    await front.first.until(lambda now: now.aborted_streams == 1)
    (row,) = await tenant.usage(rows=1)
    assert row.usage.estimated
    assert 0 < row.usage.output_tokens < 500
    assert row.cost_micros > 0
    (event,) = await audit_events(tenant, rows=1)
    assert event.outcome == "cancelled"
    await tenant.nothing_held()


async def test_a_stream_that_breaks_says_so_in_its_last_event(tenant: Tenant, front: Front) -> None:
    front.first.set(cut_after_chunks=6, tokens_per_second=200, reply_tokens=50)
    reply = await tenant.chat("Break.", stream=True)
    assert reply.events[-1]["error"]["code"] == "provider_stream_broken"
    (row,) = await tenant.usage(rows=1)
    assert row.usage.estimated


async def test_a_whole_answer_that_breaks_is_an_error(tenant: Tenant, front: Front) -> None:
    front.first.set(cut_after_chunks=6, tokens_per_second=200, reply_tokens=50)
    assert await tenant.failure("Break whole.") == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_STREAM_BROKEN")


async def test_when_every_provider_fails_the_money_is_let_go(tenant: Tenant, front: Front) -> None:
    front.first.set(fail_next=-1)
    front.second.set(fail_next=-1)
    assert await tenant.failure("Nobody.") == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
    await tenant.nothing_held()


async def test_a_spent_budget_is_refused(front: Front) -> None:
    poor = await front.tenant(rubles=0.000001)
    assert await poor.failure("Too dear.") == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED")


async def test_an_answer_that_outgrows_its_reservation_holds_more_while_the_budget_bears_it(
    tenant: Tenant, front: Front
) -> None:
    for cloud in (front.first, front.second):
        cloud.set(reply_tokens=400, ignore_limit=True)
    reply = await tenant.chat("Say more than I let you.", stream=True, max_tokens=10)
    assert reply.text.count("fox") == 45
    (row,) = await tenant.usage(rows=1)
    assert (row.usage.output_tokens, row.overrun_micros) == (400, 0)
    await tenant.nothing_held()


async def test_an_answer_that_outgrows_its_budget_is_stopped_in_band(front: Front) -> None:
    # At the dearest: a prompt of some 100 tokens and 10 of the answer, and hardly more.
    poor = await front.tenant(rubles=0.05)
    for cloud in (front.first, front.second):
        cloud.set(reply_tokens=5000, ignore_limit=True, tokens_per_second=2000)
    reply = await poor.chat("Talk on.", stream=True, max_tokens=10)
    assert reply.events[-1]["error"]["code"] == "insufficient_quota"
    (row,) = await poor.usage(rows=1)
    assert row.usage.estimated
    budget = await front.billing.budget(poor.identity)
    assert 0 < budget.spent_micros == row.cost_micros <= budget.limit_micros


async def test_models_outside_the_policy_are_not_there(front: Front) -> None:
    limited = await front.tenant(allowed_models=["e"])
    assert await limited.failure("hello") == (grpc.StatusCode.PERMISSION_DENIED, "MODEL_NOT_ALLOWED")
    assert await limited.failure("hello", model="x") == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    request = openai_pb2.ListOpenAIModelsRequest()
    listed = await front.openai.ListOpenAIModels(request, metadata=limited.metadata(), timeout=CALL_SECONDS)
    assert [model["id"] for model in orjson.loads(listed.data)["data"]] == ["e"]
    wanted = openai_pb2.GetOpenAIModelRequest(model="m")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await front.openai.GetOpenAIModel(wanted, metadata=limited.metadata(), timeout=CALL_SECONDS)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_limit_beyond_the_context_names_its_field(tenant: Tenant) -> None:
    assert await tenant.failure("x", max_tokens=100_000) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_a_revoked_key_is_refused_at_once(tenant: Tenant, front: Front) -> None:
    await tenant.chat("While I may.")
    with acting_as(ADMIN):
        made = await front.billing.tenants.CreateKey(
            tenant_pb2.CreateKeyRequest(tenant_id=tenant.identity.tenant_id, display_name="k")
        )
        await front.billing.tenants.RevokeKey(
            tenant_pb2.RevokeKeyRequest(tenant_id=tenant.identity.tenant_id, key_id=made.key.id)
        )
    tenant.identity = type(tenant.identity)(tenant.identity.tenant_id, made.key.id, tenant.identity.roles, "")

    async def refused() -> bool:
        try:
            await tenant.chat("May I?")
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
        return False

    async with asyncio.timeout(1):
        await eventually(refused)
