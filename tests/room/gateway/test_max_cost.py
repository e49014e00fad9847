"""The most that one request may cost: cut beforehand, stopped where a provider does not care, never billed."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from meshkit.errors import error_info, error_reason
from tests.support.gateway_room import Front, Tenant, audit_events, eventually, typed_prompt

SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "required": ["a"]}}}


async def refused(tenant: Tenant, text: str, **more: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tenant.chat(text, **more)
    return caught.value


def micros(reply: Any) -> int:
    return round(float(reply.headers["x-llmmesh-cost"].split()[0]) * 1_000_000)


@pytest.mark.parametrize("how", ["header", "body"])
async def test_the_answer_is_as_long_as_the_money_lasts(tenant: Tenant, front: Front, how: str) -> None:
    front.first.set(reply_tokens=500)
    said = {"headers": {"x-llmmesh-max-cost": "0.02"}} if how == "header" else {"llmmesh": {"max_cost": 0.02}}
    reply = await tenant.chat(f"At length, by {how}?", max_tokens=400, **said)
    (choice,) = reply.json["choices"]
    asked = front.first.bodies[-1]["max_tokens"]
    assert 1 <= asked < 60
    assert (choice["finish_reason"], reply.json["usage"]["completion_tokens"]) == ("length", asked)
    assert reply.json["llmmesh"]["stopped_for"] == "cost"
    assert 0 < micros(reply) <= 20_000
    (row,) = await tenant.usage(rows=1)
    assert (row.stop, row.finish_reason) == ("cost", chat_pb2.FINISH_REASON_LENGTH)
    (event,) = await audit_events(tenant, rows=1)
    assert (event.outcome, event.reason) == ("stopped", "cost")


async def test_whoever_is_too_dear_is_not_asked(tenant: Tenant, front: Front) -> None:
    front.first.set(fail_next=-1)
    assert await tenant.failure("Only the cheap one?", max_tokens=30, llmmesh={"max_cost": 0.025}) == (
        grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE"
    )  # fmt: skip
    assert front.second.counters.requests == 0
    reply = await tenant.chat("Both?", max_tokens=30, llmmesh={"max_cost": 0.1})
    assert reply.headers["x-llmmesh-provider"] == "second"


async def test_a_request_that_cannot_be_paid_for_is_refused_and_says_what_it_takes(
    tenant: Tenant, front: Front
) -> None:
    error = await refused(tenant, "How much?", llmmesh={"max_cost": 0.001})
    assert (error.code(), error_reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "MAX_COST_EXCEEDED")
    metadata = error_info(error).metadata
    assert (metadata["field"], metadata["max_cost"], metadata["currency_code"]) == ("max_cost", "0.001", "RUB")
    assert 0.001 < float(metadata["least_cost"]) < 0.02
    assert front.first.counters.requests == 0
    (event,) = await audit_events(tenant, rows=1)
    assert (event.outcome, event.reason) == ("refused", "MAX_COST_EXCEEDED")
    await tenant.nothing_held()
    paid = await tenant.chat("How much?", max_tokens=1, llmmesh={"max_cost": float(metadata["least_cost"])})
    assert paid.json["usage"]["completion_tokens"] == 1


async def test_a_cached_answer_costs_nothing_and_may(tenant: Tenant, front: Front) -> None:
    await tenant.chat("Twice?", max_tokens=50)

    async def cached() -> bool:
        reply = await tenant.chat("Twice?", max_tokens=50)
        return bool(reply.headers["x-llmmesh-cache"] == "exact")

    await eventually(cached)
    reply = await tenant.chat("Twice?", {"x-llmmesh-max-cost": "0"}, max_tokens=50)
    assert reply.headers["x-llmmesh-cost"] == "0 RUB"
    assert await tenant.failure("Once?", llmmesh={"max_cost": 0}) == (
        grpc.StatusCode.INVALID_ARGUMENT, "MAX_COST_EXCEEDED"
    )  # fmt: skip


async def test_an_answer_cut_for_its_cost_is_nobody_elses(tenant: Tenant, front: Front) -> None:
    front.first.set(reply_tokens=100)
    short = await tenant.chat("How long?", max_tokens=100, llmmesh={"max_cost": 0.02})
    long = await tenant.chat("How long?", max_tokens=100)
    assert short.json["usage"]["completion_tokens"] < long.json["usage"]["completion_tokens"] == 100
    assert "stopped_for" not in long.json["llmmesh"]


async def test_a_provider_that_ignores_its_limit_is_stopped_and_what_it_took_too_much_is_not_billed(
    tenant: Tenant, front: Front
) -> None:
    front.first.set(reply_tokens=3000, ignore_limit=True, tokens_per_second=2000)
    reply = await tenant.chat("Who cares?", stream=True, max_tokens=400, llmmesh={"max_cost": 0.02})
    last = next(event for event in reversed(reply.events) if event != "[DONE]")
    assert (last["choices"][0]["finish_reason"], last["llmmesh"]["stopped_for"]) == ("length", "cost")
    await front.first.until(lambda now: now.aborted_streams == 1)
    (row,) = await tenant.usage(rows=1)
    assert row.cost_micros == 20_000
    assert row.overrun_micros > 0
    assert (row.stop, row.usage.estimated) == ("cost", True)


async def test_a_tenants_limit_holds_for_all_its_requests_and_a_request_may_only_lower_it(front: Front) -> None:
    frugal = await front.tenant(max_cost_micros=20_000)
    front.first.set(reply_tokens=500)
    for number, more in enumerate(({}, {"llmmesh": {"max_cost": 5}})):
        reply = await frugal.chat(f"May I {number}?", max_tokens=400, **more)
        assert reply.json["llmmesh"]["stopped_for"] == "cost"
        assert micros(reply) <= 20_000
    lower = await frugal.chat("Less?", max_tokens=400, llmmesh={"max_cost": 0.015})
    assert micros(lower) <= 15_000
    with pytest.raises(grpc.aio.AioRpcError, match="max_cost"):
        await frugal.chat("long " * 100)


async def test_the_typed_face_says_it_in_micro_units(tenant: Tenant, front: Front) -> None:
    front.first.set(reply_tokens=500)
    request = typed_prompt("Typed?")
    request.max_cost_micros = 20_000
    answer = await front.typed.GenerateChat(request, metadata=tenant.metadata())
    assert (answer.answer.finish_reason, answer.report.stopped_for) == (chat_pb2.FINISH_REASON_LENGTH, "cost")
    assert 0 < answer.report.cost_micros <= 20_000
    request.max_cost_micros = -1
    with pytest.raises(grpc.aio.AioRpcError, match="max_cost_micros"):
        await front.typed.GenerateChat(request, metadata=tenant.metadata())


async def test_embeddings_are_held_to_it(tenant: Tenant, front: Front) -> None:
    request = gateway_pb2.EmbedTextRequest(model="e", texts=["a fox"], max_cost_micros=2_000)
    assert (await front.typed.EmbedText(request, metadata=tenant.metadata())).embeddings
    request.max_cost_micros = 10
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await front.typed.EmbedText(request, metadata=tenant.metadata())
    assert error_reason(caught.value) == "MAX_COST_EXCEEDED"


async def test_a_repair_is_paid_from_what_the_first_answer_left(tenant: Tenant, front: Front) -> None:
    front.first.set(reply="no json at all", second_reply=json.dumps({"a": 1}))
    repaired = await tenant.chat("Form?", max_tokens=20, response_format=SCHEMA, llmmesh={"max_cost": 1})
    assert json.loads(repaired.json["choices"][0]["message"]["content"]) == {"a": 1}
    error = await refused(tenant, "Form!", max_tokens=20, response_format=SCHEMA, llmmesh={"max_cost": 0.03})
    assert error_reason(error) == "MAX_COST_EXCEEDED"
    rows = await tenant.usage(rows=3)
    assert sum(row.cost_micros for row in rows if not row.request_id.startswith(tenant.request_ids[0])) <= 30_000
