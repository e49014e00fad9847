"""One chat through the front door: answers, cache, cost, streams, both faces."""

from __future__ import annotations

import grpc
import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from llmmesh.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.support.fix_mesh import Mesh, Tenant, eventually
from tests.support.scripted_provider import ScriptedProvider

SENTENCES = ["Лиса бежит по лесу.", "A fox runs through the forest.", "Parliament has changed the tax law."]
FOX = "The quick brown fox jumps over the lazy dog."


async def test_the_openai_client_gets_an_answer(tenant: Tenant) -> None:
    answer = await tenant.openai.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "Tell me about foxes."}]
    )
    assert answer.choices[0].message.content == FOX
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


async def test_the_openai_client_gets_a_stream_that_ends_with_usage(tenant: Tenant) -> None:
    stream = await tenant.openai.chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": "Stream me a fox."}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == FOX
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


async def test_the_second_asking_is_answered_by_the_exact_cache_for_nothing(
    tenant: Tenant, first: ScriptedProvider
) -> None:
    asked = await tenant.chat("What does a fox eat?")
    assert asked.headers["x-llmmesh-cache"] == "miss"

    async def again() -> bool:
        answer = await tenant.chat("What does a fox eat?")
        return answer.headers["x-llmmesh-cache"] == "exact" and answer.json()["choices"] == asked.json()["choices"]

    await eventually(again)
    hit = await tenant.chat("What does a fox eat?")
    assert hit.headers["x-llmmesh-cost"].split() == ["0", "RUB"]
    assert first.counters.requests == 1


async def test_the_same_question_in_other_words_is_answered_by_the_semantic_cache(
    tenant: Tenant, real_model: str
) -> None:
    # Not while the chat model loads: embeddings then miss their deadline and the question is not remembered.
    assert real_model
    wordings = (f"{opening} I reset my password?" for opening in ("How can", "How could", "How should", "How may"))
    await tenant.finds_in_other_words("How do I reset my password?", wordings)


async def test_a_question_that_only_looks_alike_is_not_answered_from_the_cache(tenant: Tenant) -> None:
    await tenant.chat("How do I convert 100 USD to EUR?")
    await tenant.usage(rows=1)
    for other in ("How do I convert 100 EUR to USD?", "How do I convert 200 USD to EUR?"):
        assert (await tenant.chat(other)).headers["x-llmmesh-cache"] not in {"exact", "semantic"}


async def test_a_cached_answer_is_replayed_as_a_stream(tenant: Tenant) -> None:
    await tenant.chat("Replay me.")

    async def hit() -> bool:
        return (await tenant.chat("Replay me.")).headers["x-llmmesh-cache"] == "exact"

    await eventually(hit)
    async with tenant.mesh.http.stream(
        "POST",
        "/v1/chat/completions",
        headers=tenant.headers,
        json={"model": "scripted", "messages": [{"role": "user", "content": "Replay me."}], "stream": True},
    ) as answer:
        events = [line async for line in answer.aiter_lines() if line]
    assert answer.headers["x-llmmesh-cache"] == "exact"
    assert events[-1] == "data: [DONE]"
    deltas = [orjson.loads(event[6:])["choices"] for event in events[:-1]]
    assert "".join(choice[0]["delta"].get("content") or "" for choice in deltas if choice) == FOX


async def test_two_tenants_never_share_an_answer(mesh: Mesh, tenant: Tenant, first: ScriptedProvider) -> None:
    stranger = await mesh.tenant()
    await tenant.chat("What is our secret plan for foxes?")
    await tenant.usage(rows=1)
    answer = await stranger.chat("What is our secret plan for foxes?")
    assert answer.headers["x-llmmesh-cache"] == "miss"
    assert first.counters.requests == 2


async def test_personal_data_neither_reads_nor_writes_the_cache_and_stays_on_our_machines(
    tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    answer = await tenant.chat("Write a letter to anna.petrova@example.com about foxes.")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "region_not_allowed"
    assert first.counters.requests + second.counters.requests == 0


async def test_the_headers_say_where_the_answer_came_from_and_what_it_cost(tenant: Tenant) -> None:
    answer = await tenant.chat("What do the headers say?")
    assert answer.headers["x-llmmesh-provider"] == "first"
    amount, currency = answer.headers["x-llmmesh-cost"].split()
    assert currency == "RUB"
    assert float(amount) > 0
    assert 0 < float(answer.headers["x-llmmesh-overhead-ms"]) < 1000
    assert answer.headers["x-request-id"]


async def test_what_was_used_is_in_the_ledger_and_in_the_budget(tenant: Tenant) -> None:
    answer = await tenant.chat("Bill me, please.")
    (row,) = await tenant.usage(rows=1)
    usage = answer.json()["usage"]
    assert row["request_id"] == answer.headers["x-request-id"]
    assert row["usage"]["input_tokens"] == usage["prompt_tokens"]
    assert row["usage"]["output_tokens"] == usage["completion_tokens"]
    budget = (await tenant.admin_get("/budget"))["budget"]
    assert budget["spent_micros"] == row["cost_micros"]
    assert int(budget.get("reserved_micros", "0")) == 0


async def test_what_happened_is_in_the_audit_log_without_the_text(tenant: Tenant) -> None:
    answer = await tenant.chat("Audit my fox.")

    async def events() -> list[dict[str, str]]:
        found: list[dict[str, str]] = (await tenant.admin_get("/audit")).get("events", [])
        return found

    (event,) = await eventually(events)
    assert event["request_id"] == answer.headers["x-request-id"]
    assert (event["outcome"], event["deployment"]) == ("answered", "first/scripted")
    assert "fox" not in str(event)


async def test_fields_we_do_not_model_reach_the_provider_byte_for_byte(tenant: Tenant, first: ScriptedProvider) -> None:
    schema = '{"type":"object","properties":{"n":{"maximum":9007199254740993,"x":5.0},"a":{"type":"string"}}}'
    tool = '{"type":"function","function":{"name":"weather","parameters":' + schema + "}}"
    body = (
        '{"model":"scripted","messages":[{"role":"user","content":"Weather?"}],"tools":['
        + tool
        + '],"top_k":40,"metadata":{"b":1,"a":2}}'
    )
    answer = await tenant.mesh.http.post("/v1/chat/completions", headers=tenant.headers, content=body)
    sent = first.requests[-1].body.decode()
    assert tool in sent.replace(" ", "")
    assert '"top_k":40' in sent.replace(" ", "")
    assert '{"b":1,"a":2}' in sent.replace(" ", "")
    call = answer.json()["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["name"] == "weather"
    assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"


async def test_the_short_form_of_a_prompt_is_answered_in_short(tenant: Tenant) -> None:
    body = {"prompt": "Explain quantum computing in simple terms", "stream": False, "model": "scripted"}
    answer = await tenant.mesh.http.post("/v1/chat/completions", headers=tenant.headers, json=body)
    said = answer.json()
    assert (said["content"], said["provider"], said["cached"]) == (FOX, "first", False)


async def test_a_caller_may_bypass_the_cache(tenant: Tenant, first: ScriptedProvider) -> None:
    for _ in range(2):
        answer = await tenant.mesh.http.post(
            "/v1/chat/completions",
            headers={**tenant.headers, "cache-control": "no-cache"},
            json={"model": "scripted", "messages": [{"role": "user", "content": "Never remember me."}]},
        )
        assert answer.headers["x-llmmesh-cache"] == "bypass"
    assert first.counters.requests == 2


async def test_models_are_listed_and_found(tenant: Tenant) -> None:
    names = [model.id async for model in tenant.openai.models.list()]
    assert {"scripted", "smollm2-135m", "multilingual-e5-small"} <= set(names)
    assert (await tenant.openai.models.retrieve("scripted")).id == "scripted"


async def test_embeddings_come_from_our_own_model(tenant: Tenant) -> None:
    answer = await tenant.openai.embeddings.create(model="multilingual-e5-small", input=SENTENCES)
    fox_ru, fox_en, law = (item.embedding for item in answer.data)
    assert len(fox_ru) == 384
    assert _cosine(fox_ru, fox_en) > _cosine(fox_ru, law)


async def test_typed_grpc_is_on_the_same_port(tenant: Tenant) -> None:
    prompt = chat_pb2.ChatPrompt(
        model="scripted",
        messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="Typed fox?")])],
    )
    bearer = (("authorization", f"Bearer {tenant.token}"),)
    async with grpc.aio.insecure_channel(tenant.mesh.settings["LLMMESH_GRPC"]) as channel:
        stub = GatewayServiceStub(channel)
        whole = await stub.GenerateChat(gateway_pb2.GenerateChatRequest(prompt=prompt), metadata=bearer, timeout=30)
        asked = gateway_pb2.StreamGenerateChatRequest(prompt=prompt, cache_mode=gateway_pb2.CACHE_MODE_BYPASS)
        events = [event async for event in stub.StreamGenerateChat(asked, metadata=bearer, timeout=30)]
    assert whole.answer.text == FOX
    assert whole.report.cost_micros > 0
    kinds = [event.WhichOneof("event") for event in events]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("route", "finished", {"delta"})
    assert "".join(event.delta.text for event in events) == FOX


async def test_typed_grpc_gets_a_true_status(mesh: Mesh) -> None:
    async with grpc.aio.insecure_channel(mesh.settings["LLMMESH_GRPC"]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await GatewayServiceStub(channel).ListModels(gateway_pb2.ListModelsRequest(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
