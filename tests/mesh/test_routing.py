"""Who answers and why, seen from outside: tiers, and explanations through the front door."""

from __future__ import annotations

from typing import Any

from tests.support.fix_mesh import Mesh, Tenant
from tests.support.scripted_provider import ScriptedProvider

QUESTION = {"model": "scripted", "messages": [{"role": "ROLE_USER", "content": [{"text": "Who would answer?"}]}]}


async def explain(mesh: Mesh, headers: dict[str, str], **body: Any) -> Any:
    answer = await mesh.http.post("/v1/routes:explain", headers=headers, json={"prompt": QUESTION, **body})
    return answer.raise_for_status().json()["explanation"]


def places(explanation: Any) -> dict[str, int]:
    return {each["deployment"]: each.get("place", 0) for each in explanation["candidates"]}


async def test_the_tier_decides_who_answers_and_the_explanation_says_so(mesh: Mesh) -> None:
    best = await mesh.tenant(tier="TIER_ENTERPRISE")
    cheap = await mesh.tenant(tier="TIER_FREE")
    told, told_cheap = await explain(mesh, best.headers), await explain(mesh, cheap.headers)
    assert (told["strategy"], told["strategy_source"]) == ("ROUTING_STRATEGY_QUALITY", "tier")
    assert places(told) == {"second/scripted": 1, "first/scripted": 2}
    assert places(told_cheap) == {"first/scripted": 1, "second/scripted": 2}
    await best.chat("Who answers the best?")
    assert [row["deployment"] for row in await best.usage(rows=1)] == ["second/scripted"]


async def test_an_explanation_gives_every_reason_and_reaches_no_provider(tenant: Tenant, first: Any) -> None:
    told = await explain(tenant.mesh, tenant.headers, data_class="DATA_CLASS_SENSITIVE")
    assert [(each["deployment"], each["reasons"]) for each in told["candidates"]] == [
        ("first/scripted", ["may not hold sensitive data"]),
        ("second/scripted", ["may not hold sensitive data"]),
    ]
    assert first.counters.requests == 0


async def test_only_those_who_run_the_mesh_learn_of_deployments_outside_a_tenants_policy(mesh: Mesh) -> None:
    limited = await mesh.tenant(allowed_deployments=["second/scripted"])
    assert places(await explain(mesh, limited.headers)) == {"second/scripted": 1}
    told = await explain(mesh, mesh.admin, tenant_id=limited.id)
    assert places(told) == {"second/scripted": 1, "first/scripted": 0}
    (left_out,) = [each for each in told["candidates"] if not each.get("place")]
    assert left_out["reasons"] == ["is not among the deployments allowed for this caller"]


async def test_another_tenants_policy_is_nobody_elses_business(mesh: Mesh, tenant: Tenant) -> None:
    other = await mesh.tenant()
    body = {"prompt": QUESTION, "tenant_id": other.id}
    answer = await mesh.http.post("/v1/routes:explain", headers=tenant.headers, json=body)
    assert answer.status_code == 404


async def test_an_explanation_needs_a_key(mesh: Mesh) -> None:
    assert (await mesh.http.post("/v1/routes:explain", json={"prompt": QUESTION})).status_code == 401


async def test_embeddings_are_explained_by_their_texts(tenant: Tenant) -> None:
    prompt = {"model": "multilingual-e5-small"}
    told = await explain(tenant.mesh, tenant.headers, prompt=prompt, texts=["fox"])
    assert places(told) == {"local/multilingual-e5-small": 1}
    answer = await tenant.mesh.http.post("/v1/routes:explain", headers=tenant.headers, json={"prompt": prompt})
    assert answer.status_code == 400


async def test_what_the_slower_of_two_read_is_on_the_bill_and_marked(
    mesh: Mesh, tenant: Tenant, first: ScriptedProvider
) -> None:
    first.set(ttft_ms=5000)
    answer = (await tenant.chat("Who speaks first?", model="hedged")).raise_for_status()
    assert answer.headers["x-llmmesh-provider"] == "second"
    request_id = answer.headers["x-request-id"]
    rows = {row["request_id"]: row for row in await tenant.usage(rows=2)}
    hedge, whole = rows[f"{request_id}:hedge-1"], rows[request_id]
    assert (hedge["deployment"], whole["deployment"]) == ("first/hedged", "second/hedged")
    assert hedge["usage"]["estimated"]
    assert "output_tokens" not in hedge["usage"]
    assert int(hedge["cost_micros"]) == 100 * int(hedge["usage"]["input_tokens"]) > 0
    budget = (await tenant.admin_get("/budget"))["budget"]
    assert int(budget["spent_micros"]) == int(hedge["cost_micros"]) + int(whole["cost_micros"])
