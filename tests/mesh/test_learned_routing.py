"""Learned routing from outside: the official client asks, feedback teaches, an operator reads what was learned."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.fix_mesh import Mesh, Tenant, eventually

LEARNED = "ROUTING_STRATEGY_LEARNED"


@pytest.fixture
async def learner(mesh: Mesh, tenant: Tenant) -> Tenant:
    """A tenant whose deployments are ranked by what was learned; both providers are well."""
    return await mesh.tenant(routing_strategy=LEARNED, allowed_deployments=["first/scripted", "second/scripted"])


async def judged(tenant: Tenant, request_id: str, **judgement: Any) -> Any:
    body = {"request_id": request_id, **judgement}
    return await tenant.mesh.http.post("/v1/feedback", headers=tenant.headers, json=body)


async def learned(mesh: Mesh) -> dict[str, dict[str, Any]]:
    answer = await mesh.http.get("/v1/routes/learned", headers=mesh.admin)
    told = answer.raise_for_status().json()
    return {each["deployment"]: each for each in told.get("deployments", [])}


async def test_an_answer_of_the_official_client_is_judged_and_the_judgement_learned(
    mesh: Mesh, learner: Tenant
) -> None:
    before = sum(each.get("ratings", 0.0) for each in (await learned(mesh)).values())
    answer = await learner.openai.chat.completions.with_raw_response.create(
        model="scripted", messages=[{"role": "user", "content": "Write a python function that sorts."}]
    )
    request_id = answer.headers["x-request-id"]
    for _ in range(2):
        reply = await judged(learner, request_id, thumbs_up=True, comment="just what I wanted")
        assert (reply.status_code, reply.json()) == (200, {})

    async def counted() -> dict[str, dict[str, Any]] | None:
        arms = await learned(mesh)
        return arms if sum(each.get("ratings", 0.0) for each in arms.values()) > before + 0.9 else None

    arms = await eventually(counted)
    assert sum(each.get("ratings", 0.0) for each in arms.values()) == pytest.approx(before + 1, abs=0.01)
    arm = arms[f"{answer.headers['x-llmmesh-provider']}/scripted"]
    assert arm["outcomes"] >= 0.99
    assert {each["feature"] for each in arm["weights"]} >= {"always", "kind:code", "language:english"}


async def test_what_cannot_be_judged_says_why_in_openais_shape(mesh: Mesh, learner: Tenant) -> None:
    request_id = (await learner.chat("Mine alone.")).headers["x-request-id"]
    stranger = await mesh.tenant()
    for reply in (await judged(stranger, request_id, score=-1), await judged(learner, "no-such-answer", score=1)):
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "resource_not_found"
    reply = await judged(learner, request_id, score=2)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "score")
    assert (await mesh.http.post("/v1/feedback", json={"request_id": request_id, "score": 1})).status_code == 401


async def test_what_was_learned_is_for_operators(mesh: Mesh, learner: Tenant) -> None:
    assert (await mesh.http.get("/v1/routes/learned", headers=learner.headers)).status_code == 403
