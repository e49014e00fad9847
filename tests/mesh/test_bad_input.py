"""Bad input gets a clear error in the caller's protocol, and the official client raises its proper class."""

from __future__ import annotations

import asyncio
import base64
import warnings
from typing import Any

import openai
import orjson
import pytest
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import OKPKey

from tests.support.fix_mesh import Mesh, Tenant, eventually
from tests.support.scripted_provider import ScriptedProvider

HELLO = [{"role": "user", "content": "hello"}]


async def _ask(client: openai.AsyncOpenAI, model: str = "scripted", **more: Any) -> Any:
    return await client.chat.completions.create(model=model, messages=HELLO, **more)  # type: ignore[call-overload]


async def test_a_missing_key_is_401(mesh: Mesh) -> None:
    answer = await mesh.http.post("/v1/chat/completions", json={"model": "scripted", "messages": HELLO})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_a_foreign_key_raises_authentication_error(mesh: Mesh, tenant: Tenant) -> None:
    head, body, signature = tenant.token.split(".")
    forged = f"{head}.{body}.{signature[:-8]}AAAAAAAA"
    for key in ("sk-made-up", forged):
        with pytest.raises(openai.AuthenticationError):
            await _ask(mesh.openai(key))


async def test_a_key_signed_with_no_algorithm_raises_authentication_error(mesh: Mesh, tenant: Tenant) -> None:
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    with pytest.raises(openai.AuthenticationError):
        await _ask(mesh.openai(f"{none}.{tenant.token.split('.')[1]}."))


async def test_an_expired_key_raises_authentication_error(tenant: Tenant) -> None:
    key = OKPKey.import_key(orjson.loads((tenant.mesh.var / "data" / "signing-key.json").read_bytes()))
    with warnings.catch_warnings():  # RFC 9864 has a newer name for the algorithm; Envoy knows this one
        warnings.simplefilter("ignore", SecurityWarning)
        token = jwt.decode(tenant.token, key, algorithms=["EdDSA"])
        expired = jwt.encode(token.header, {**token.claims, "exp": 1_600_000_000}, key, algorithms=["EdDSA"])
    with pytest.raises(openai.AuthenticationError):
        await _ask(tenant.mesh.openai(expired))


async def test_a_key_that_would_end_in_the_past_is_not_made(tenant: Tenant) -> None:
    url, body = f"/v1/tenants/{tenant.id}/keys", {"expire_time": "2020-01-01T00:00:00Z"}
    answer = await tenant.mesh.http.post(url, headers=tenant.mesh.admin, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expire_time")


async def test_a_revoked_key_is_refused_at_once(tenant: Tenant) -> None:
    await _ask(tenant.openai)
    url = f"/v1/tenants/{tenant.id}/keys/{tenant.key_id}:revoke"
    (await tenant.mesh.http.post(url, headers=tenant.mesh.admin, json={})).raise_for_status()

    async def refused() -> bool:
        return (await tenant.chat("hello")).status_code == 401

    await eventually(refused, timeout_seconds=1)


async def test_a_key_without_the_role_raises_permission_denied(tenant: Tenant) -> None:
    await tenant.key(roles=["ROLE_FINANCE"])
    with pytest.raises(openai.PermissionDeniedError):
        await _ask(tenant.openai)


async def test_a_developer_may_not_administer(tenant: Tenant) -> None:
    answer = await tenant.mesh.http.get("/v1/tenants", headers=tenant.headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "role_missing"


async def test_an_unknown_model_raises_not_found(tenant: Tenant) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await _ask(tenant.openai, model="gpt-17")
    assert caught.value.code == "model_not_found"


async def test_a_model_outside_the_tenants_policy_raises_permission_denied(mesh: Mesh, tenant: Tenant) -> None:
    limited = await mesh.tenant(allowed_models=["smollm2-135m"])

    async def refused() -> bool:
        answer = await limited.chat("hello")
        return answer.status_code == 403 and answer.json()["error"]["code"] == "model_not_allowed"

    await eventually(refused)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"stream": "yes"}, "stream"),
        ({"n": 2}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"model": 5}, "model"),
    ],
)
async def test_a_wrong_field_is_named(tenant: Tenant, change: dict[str, Any], param: str) -> None:
    body = {"model": "scripted", "messages": HELLO, **change}
    answer = await tenant.mesh.http.post("/v1/chat/completions", headers=tenant.headers, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error"), error


async def test_a_wrong_field_raises_bad_request_in_the_official_client(tenant: Tenant) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await _ask(tenant.openai, max_tokens=-1)
    assert caught.value.param == "max_tokens"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "scripted"', b"\xff\xfe", b'"text"'])
async def test_a_body_that_is_no_json_object_is_400(tenant: Tenant, body: bytes) -> None:
    answer = await tenant.mesh.http.post("/v1/chat/completions", headers=tenant.headers, content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_body_over_16_mib_is_413(tenant: Tenant) -> None:
    body = orjson.dumps({"model": "scripted", "messages": [{"role": "user", "content": "x" * (17 * 2**20)}]})
    answer = await tenant.mesh.http.post("/v1/chat/completions", headers=tenant.headers, content=body)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_wrong_path_is_404_and_a_wrong_method_404_or_405(tenant: Tenant) -> None:
    nowhere = await tenant.mesh.http.post("/v1/nowhere", headers=tenant.headers, json={})
    wrong = await tenant.mesh.http.delete("/v1/chat/completions", headers=tenant.headers)
    assert nowhere.status_code == 404
    assert wrong.status_code in {404, 405}
    assert "message" in nowhere.json()["error"]


async def test_an_rpc_of_the_mesh_is_not_reachable_from_outside(tenant: Tenant) -> None:
    url = "/llmmesh.billing.v1.BillingService/CreateReservation"
    answer = await tenant.mesh.http.post(url, headers=tenant.mesh.admin, content=b"")
    assert answer.status_code == 404


async def test_identity_headers_cannot_be_spoofed(mesh: Mesh, tenant: Tenant) -> None:
    victim = await mesh.tenant()
    spoofed = {**tenant.headers, "x-llmmesh-tenant": victim.id, "x-llmmesh-roles": "admin"}
    body = {"model": "scripted", "messages": HELLO}
    await mesh.http.post("/v1/chat/completions", headers=spoofed, json=body)
    assert (await tenant.usage(rows=1))[0]["tenant_id"] == tenant.id
    assert (await mesh.http.get("/v1/tenants", headers=spoofed)).status_code == 403


async def test_a_spent_budget_raises_rate_limit_error_with_insufficient_quota(tenant: Tenant) -> None:
    url = f"/v1/tenants/{tenant.id}/budget"
    (await tenant.mesh.http.patch(url, headers=tenant.mesh.admin, json={"limit_micros": "1"})).raise_for_status()
    with pytest.raises(openai.RateLimitError) as caught:
        await _ask(tenant.openai)
    assert caught.value.code == "insufficient_quota"


async def test_a_caller_who_hangs_up_stops_the_provider_and_is_billed_for_what_it_got(
    tenant: Tenant, first: ScriptedProvider
) -> None:
    first.set(tokens_per_second=50, reply_tokens=5000)
    stream = await tenant.openai.chat.completions.create(model="scripted", messages=HELLO, stream=True)
    received = 0
    async for _ in stream:
        received += 1
        if received == 3:
            break
    await stream.close()
    await first.until(lambda now: now.aborted_streams == 1 and now.open_streams == 0)
    (row,) = await tenant.usage(rows=1)
    assert row["usage"]["estimated"] is True
    assert 0 < row["usage"]["output_tokens"] < 500
    assert int(row["cost_micros"]) > 0
    budget = (await tenant.admin_get("/budget"))["budget"]
    assert int(budget.get("reserved_micros", "0")) == 0
    late = {"request_id": row["request_id"], "usage": {"input_tokens": row["usage"]["input_tokens"]}}
    url = f"/v1/tenants/{tenant.id}/usage:correct"
    answer = await tenant.mesh.http.post(url, headers=tenant.mesh.admin, json=late)
    correction = answer.raise_for_status().json()["correction"]
    assert correction["usage"]["output_tokens"] == -row["usage"]["output_tokens"]
    budget = (await tenant.admin_get("/budget"))["budget"]
    assert int(budget["spent_micros"]) == int(row["cost_micros"]) + int(correction["cost_micros"])


async def test_the_short_form_without_a_text_is_400(tenant: Tenant) -> None:
    answer = await tenant.mesh.http.post("/v1/chat/completions", headers=tenant.headers, json={"prompt": 5})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


async def test_many_callers_at_once_cannot_overrun_a_budget(
    mesh: Mesh, tenant: Tenant, first: ScriptedProvider
) -> None:
    first.set(ttft_ms=500)
    limit = 500_000
    url = f"/v1/tenants/{tenant.id}/budget"
    (await mesh.http.patch(url, headers=mesh.admin, json={"limit_micros": str(limit)})).raise_for_status()
    answers = await asyncio.gather(*(tenant.chat(f"Question {i}?", max_tokens=16) for i in range(60)))
    served = sum(answer.status_code == 200 for answer in answers)
    assert {answer.status_code for answer in answers} == {200, 429}
    await tenant.usage(rows=served)
    budget = (await tenant.admin_get("/budget"))["budget"]
    assert int(budget["spent_micros"]) <= limit
