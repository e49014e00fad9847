"""The mesh's own model, run by the real engine."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil

from llmmesh.guard.v1 import guard_pb2
from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceStub
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.client import connect
from meshkit.identity import Identity, acting_as
from services.guard.app import guard
from services.guard.config import GuardConfig
from tests.support.fix_mesh import Mesh, Tenant, eventually

PARIS = "What is the capital of France?"


async def test_a_real_model_answers_as_a_stream(tenant: Tenant, real_model: str) -> None:
    stream = await tenant.openai.chat.completions.create(
        model=real_model, messages=[{"role": "user", "content": PARIS}], stream=True, temperature=0, max_tokens=20
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert "Paris" in text


async def test_its_answer_is_cached_and_billed(tenant: Tenant, real_model: str) -> None:
    asked = {"model": real_model, "temperature": 0, "max_tokens": 20}
    first = await tenant.chat(PARIS, **asked)
    assert first.headers["x-llmmesh-provider"] == "local"
    assert float(first.headers["x-llmmesh-cost"].split()[0]) > 0

    async def cached() -> bool:
        return (await tenant.chat(PARIS, **asked)).headers["x-llmmesh-cache"] == "exact"

    await eventually(cached)


async def test_personal_data_may_go_to_our_own_model_and_is_not_cached(tenant: Tenant, real_model: str) -> None:
    letter = "Write to anna.petrova@example.com about foxes."
    for _ in range(2):
        answer = await tenant.chat(letter, model=real_model, max_tokens=8)
        assert (answer.status_code, answer.headers["x-llmmesh-provider"]) == (200, "local")
        assert answer.headers["x-llmmesh-cache"] in {"miss", "bypass"}


async def test_hanging_up_stops_the_engine(tenant: Tenant, real_model: str) -> None:
    stream = await tenant.openai.chat.completions.create(
        model=real_model,
        messages=[{"role": "user", "content": "Count from one to ten thousand."}],
        stream=True,
        max_tokens=800,
        extra_body={"ignore_eos": True},
    )
    async for _ in stream:
        break
    await stream.close()
    (row,) = await tenant.usage(rows=1)
    assert int(row["usage"]["output_tokens"]) < 400


async def test_several_callers_are_answered_together(tenant: Tenant, real_model: str) -> None:
    answers = await asyncio.gather(
        *(tenant.chat(f"Say the number {i}.", model=real_model, max_tokens=16) for i in range(6))
    )
    assert {answer.status_code for answer in answers} == {200}


async def test_a_model_of_our_own_judges_prompts_as_llama_guard_does(mesh: Mesh, real_model: str) -> None:
    tenant = await mesh.tenant(guard={"model": True, "sampled_share": 1, "escalation_budget": "60s"})
    wishes = {"model": True, "sampled_share": 1, "escalation_budget": "60s"}
    asked = {"text": PARIS, "policy": wishes}
    judged = {
        **dict.fromkeys(("names", "patterns", "classifier", "llama_guard"), "LAYER_OUTCOME_JUDGED"),
        "embedding": "LAYER_OUTCOME_NOT_ASKED",
        "azure": "LAYER_OUTCOME_ABSENT",
    }

    async def judgement() -> dict[str, Any] | None:
        """Its first verdict may come too late, for the engine compiles the grammar meanwhile."""
        answer = await mesh.http.post("/v1/guard:check", headers=tenant.headers, json=asked)
        told: dict[str, Any] = answer.raise_for_status().json()
        return told if {each["layer"]: each["outcome"] for each in told["layers"]} == judged else None

    told = await eventually(judgement)
    verdict = told["verdict"]
    scores = [found["score"] for found in verdict.get("detections", []) if found["layer"] == "llama_guard"]
    # A model that was not taught to judge has a verdict all the same: the grammar leaves it no other word.
    refused = verdict["action"] == "ACTION_BLOCK"
    assert verdict["action"] in {"ACTION_ALLOW", "ACTION_BLOCK"}
    assert bool(scores and min(scores) >= 0.2) or not refused
    chat = await tenant.chat(PARIS)
    assert chat.status_code == (400 if refused else 200)


async def test_it_stops_an_answer_that_it_calls_unsafe(mesh: Mesh, real_model: str) -> None:
    """A guard for which the smallest probability is too much has its windows judged by the mesh's engine."""
    config = GuardConfig.model_validate(
        {
            "listen": "127.0.0.1:0",
            "metrics_listen": "",
            "drain_seconds": 0,
            "mesh_target": psutil.Process(mesh.pids()["guard"]).environ()["LLMMESH_GUARD_MESH_TARGET"],
            "llama_guard_model": real_model,
            "llama_guard_block_from": 1e-9,
            "escalation_seconds": 60,
        }
    )
    wishes = tenant_pb2.GuardPolicy(model=True, sampled_share=1)
    said = "Paris has a metro. " * 30
    with acting_as(Identity("acme", "key-1", frozenset({"developer"}), "req-1")):
        async with guard(config) as port, connect(f"127.0.0.1:{port}", GuardServiceStub, wait_seconds=5) as stub:
            call = stub.WatchAnswer(timeout=100)
            await call.write(guard_pb2.WatchAnswerRequest(policy=wishes, text=said))
            shown = (await call.read()).text
            last = await call.read()  # while the answer is under way
    assert shown + "." == said.strip() or shown == said
    assert last.verdict.action == guard_pb2.ACTION_BLOCK
    assert last.verdict.detections[0].rule.startswith("llama_guard.")
