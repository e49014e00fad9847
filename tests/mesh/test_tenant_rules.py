"""Rules of a tenant's own: put by its admin, in force in every prompt and answer, and nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.fix_mesh import Mesh, Tenant, eventually
from tests.support.importing import imported
from tests.support.scripted_provider import ScriptedProvider

FALCON = {
    "id": "codename",
    "action": "ACTION_MASK",
    "patterns": [r"\bfalcon(?:-\d{1,3})?\b"],
    "must_match": ["Project Falcon", "FALCON-7"],
    "must_not_match": ["falconry"],
}
MERGER = {
    "id": "merger",
    "action": "ACTION_BLOCK",
    "data_class": "DATA_CLASS_CONFIDENTIAL",
    "patterns": ["слияни[еяю] с Ромашкой"],
    "must_match": ["слияние с Ромашкой", "Слияния с ромашкой не будет"],
    "must_not_match": ["букет с ромашкой"],
}
LEDGER = {
    "id": "ledger",
    "directions": ["DIRECTION_INPUT"],
    "data_class": "DATA_CLASS_SENSITIVE",
    "patterns": [r"LDG\d{4}"],
    "must_match": ["LDG1234"],
    "must_not_match": ["LDG12"],
}


async def put(mesh: Mesh, tenant: Tenant, *rules: dict[str, Any]) -> httpx.Response:
    url = f"/v1/tenants/{tenant.id}/guard-rules"
    return await mesh.http.put(url, headers=mesh.admin, json={"rules": list(rules)})


async def ruled(mesh: Mesh, *rules: dict[str, Any], **policy: Any) -> Tenant:
    """A tenant whose rules are known to the gateway."""
    tenant = await mesh.tenant(**policy)
    version = (await put(mesh, tenant, *rules)).raise_for_status().json()["version"]
    await in_force(tenant, version)
    return tenant


async def in_force(tenant: Tenant, version: str) -> None:
    """Return once answers are judged by this version, as the audit log says."""
    asked = iter(range(1000))

    async def judged() -> bool:
        await tenant.chat(f"Which rules are these? {next(asked)}")
        events = (await tenant.admin_get("/audit")).get("events", [])
        return any(event.get("guard_policy_version", "").endswith(f"+{version}") for event in events)

    assert await eventually(judged)


async def said(tenant: Tenant, text: str, *, stream: bool, **more: Any) -> tuple[str, str]:
    """What the official client hears, and how it ends."""
    messages: Any = [{"role": "user", "content": text}]
    if not stream:
        answer = await tenant.openai.chat.completions.create(model="scripted", messages=messages, **more)
        return answer.choices[0].message.content or "", str(answer.choices[0].finish_reason)
    heard, end = "", ""
    async for chunk in await tenant.openai.chat.completions.create(
        model="scripted", messages=messages, stream=True, **more
    ):
        for choice in chunk.choices:
            heard, end = heard + (choice.delta.content or ""), choice.finish_reason or end
    return heard, end


async def test_imported_pairs_pass_the_rules_and_are_found_under_them(
    mesh: Mesh, first: ScriptedProvider, tmp_path: Path
) -> None:
    tenant = await ruled(mesh, MERGER)
    first.reset()
    merger = "Когда слияние с Ромашкой?"
    counts = await imported(tenant, tmp_path, {"When are you open?": "From nine to six.", merger: "Никогда."})
    assert counts["refused by the guard"] == 1
    answer = await tenant.chat("When are you open?")
    assert (answer.headers["x-llmmesh-cache"], answer.headers["x-llmmesh-provider"]) == ("exact", "import")
    assert first.counters.requests == 0


async def test_rules_are_kept_as_they_were_put_with_their_longest_match(mesh: Mesh) -> None:
    tenant = await mesh.tenant()
    made = (await put(mesh, tenant, FALCON, LEDGER)).raise_for_status().json()
    listed = (await mesh.http.get(f"/v1/tenants/{tenant.id}/guard-rules", headers=mesh.admin)).json()
    assert listed == made
    assert [rule["id"] for rule in listed["rules"]] == ["codename", "ledger"]
    assert listed["rules"][0]["max_length"] == len("falcon-123")
    policy = (await tenant.admin_get(""))["tenant"]["policy"]
    assert policy["guard"]["rules_version"] == made["version"]
    body = {"policy": {"guard": {"mask": True, "rules_version": "another"}}}
    changed = (await mesh.http.patch(f"/v1/tenants/{tenant.id}", headers=mesh.admin, json=body)).raise_for_status()
    assert changed.json()["tenant"]["policy"]["guard"] == {"mask": True, "rules_version": made["version"]}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_masked_word_reaches_no_provider_and_comes_back_to_the_caller(
    mesh: Mesh, first: ScriptedProvider, stream: bool
) -> None:
    tenant = await ruled(mesh, FALCON)
    first.set(reply="About [CODENAME_1]: it flies.")
    heard, end = await said(tenant, "When does Falcon-7 start?", stream=stream)
    assert first.bodies[-1]["messages"][-1]["content"] == "When does [CODENAME_1] start?"
    assert (heard, end) == ("About Falcon-7: it flies.", "stop")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_masked_word_of_an_answer_is_never_shown(mesh: Mesh, first: ScriptedProvider, stream: bool) -> None:
    tenant = await ruled(mesh, FALCON)
    first.set(reply="They call it FALCON-12, and Fаlcon as well.", tokens_per_second=200)
    heard, end = await said(tenant, "What do they call it?", stream=stream)
    assert (heard, end) == ("They call it [CODENAME], and [CODENAME] as well.", "stop")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_blocking_rule_refuses_prompts_and_stops_answers(
    mesh: Mesh, first: ScriptedProvider, stream: bool
) -> None:
    tenant, other = await ruled(mesh, MERGER), await mesh.tenant()
    requests = first.counters.requests
    with pytest.raises(openai.BadRequestError) as caught:
        await said(tenant, "Когда слияние с Ромашкой?", stream=stream)
    assert caught.value.code == "content_policy_violation"
    assert "tenant.merger" in str(caught.value)
    assert first.counters.requests == requests
    first.set(reply="Скажу так: слияние с Ромашкой назначено на май.")
    assert await said(tenant, "Что нового?", stream=stream) == ("Скажу так: ", "content_filter")
    assert (await said(other, "Что нового?", stream=stream))[1] == "stop"


async def test_arguments_of_a_tool_call_stay_json(mesh: Mesh, first: ScriptedProvider) -> None:
    tenant = await ruled(mesh, FALCON)
    first.set(tool_arguments='{"what": "falcon-7", "n": 3}')
    tool: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    messages: Any = [{"role": "user", "content": "Look it up."}]
    answer = await tenant.openai.chat.completions.create(model="scripted", messages=messages, tools=[tool])
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.function.arguments == '{"what": "[CODENAME]", "n": 3}'


async def test_a_cached_answer_is_bound_to_the_rules_it_was_judged_by(mesh: Mesh, first: ScriptedProvider) -> None:
    tenant = await ruled(mesh, LEDGER)
    first.set(reply="The eagle and the falcon.")
    asked = "Name two birds of prey."

    async def answered(status: str) -> str | None:
        answer = await tenant.chat(asked)
        text: str = answer.json()["choices"][0]["message"]["content"]
        return text if answer.headers["x-llmmesh-cache"] == status else None

    assert await answered("miss") == "The eagle and the falcon."
    assert await eventually(lambda: answered("exact")) == "The eagle and the falcon."
    version = (await put(mesh, tenant, LEDGER, FALCON)).raise_for_status().json()["version"]
    await in_force(tenant, version)
    first.set(reply="The eagle and the falcon.")
    assert await answered("miss") == "The eagle and the [CODENAME]."
    assert await eventually(lambda: answered("exact")) == "The eagle and the [CODENAME]."
    (await put(mesh, tenant)).raise_for_status()

    async def unmasked() -> bool:
        return (await tenant.chat(asked)).json()["choices"][0]["message"]["content"] == "The eagle and the falcon."

    assert await eventually(unmasked)


async def test_a_rule_raises_the_class_of_the_data(mesh: Mesh) -> None:
    tenant = await ruled(mesh, LEDGER)
    answer = await tenant.chat("Sum up LDG2026.")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "region_not_allowed")


async def test_own_rules_can_be_tried(mesh: Mesh) -> None:
    tenant = await ruled(mesh, FALCON)
    asked = {"text": "Where is Falcon?", "tenant_rules": True}
    answer = await mesh.http.post("/v1/guard:check", headers=tenant.headers, json=asked)
    told = answer.raise_for_status().json()
    assert told["verdict"]["action"] == "ACTION_MASK"
    (found,) = told["verdict"]["detections"]
    assert (found["rule"], found["layer"], found["start"]) == ("tenant.codename", "tenant_rules", 9)
    assert "Falcon" not in found["masked_context"]
    assert {"layer": "tenant_rules", "outcome": "LAYER_OUTCOME_JUDGED"} in told["layers"]


WRONG = {
    "a bomb": ({"patterns": ["((a{1,50}){1,50}){1,50}"]}, "rules[1].patterns[0]"),
    "no expression": ({"patterns": ["b", "(a"]}, "rules[1].patterns[1]"),
    "an unbounded match": ({"patterns": ["ab+"]}, "rules[1].patterns[0]"),
    "a failing example": ({"must_match": ["Project Falcon", "sparrow"]}, "rules[1].must_match[1]"),
    "a failing counterexample": ({"must_not_match": ["the falcon"]}, "rules[1].must_not_match[0]"),
    "no example": ({"must_match": []}, "rules[1].must_match"),
    "a category of its own": ({"category": "birds"}, "rules[1].category"),
    "the same id": ({"id": "ledger"}, "rules[1].id"),
    "too lax a stop": ({"action": "ACTION_BLOCK", "severity": "RISK_LEVEL_HIGH"}, "rules[1]"),
    "too much": ({"patterns": ["a" * 1001]}, "rules[1].patterns[0]"),
}


@pytest.mark.parametrize(("wrong", "field"), WRONG.values(), ids=WRONG.keys())
async def test_rules_that_cannot_be_used_are_refused_naming_the_field(
    mesh: Mesh, tenant: Tenant, wrong: dict[str, Any], field: str
) -> None:
    refused = await put(mesh, tenant, LEDGER, {**FALCON, **wrong})
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == field
    assert (await tenant.admin_get("/guard-rules")).get("rules", []) == []


async def test_only_admins_put_rules_and_auditors_read_their_own(mesh: Mesh, tenant: Tenant) -> None:
    (await put(mesh, tenant, LEDGER)).raise_for_status()
    url = f"/v1/tenants/{tenant.id}/guard-rules"
    assert (await mesh.http.put(url, headers=tenant.headers, json={})).status_code == 403
    await tenant.key(roles=["ROLE_AUDITOR"])
    assert len((await mesh.http.get(url, headers=tenant.headers)).raise_for_status().json()["rules"]) == 1
    stranger = await mesh.tenant()
    await stranger.key(roles=["ROLE_AUDITOR"])
    assert (await mesh.http.get(url, headers=stranger.headers)).status_code == 404
    nobody = await mesh.http.put("/v1/tenants/nobody-here/guard-rules", headers=mesh.admin, json={"rules": [LEDGER]})
    assert nobody.status_code == 404
