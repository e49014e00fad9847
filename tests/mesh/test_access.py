"""Keys and their limits through the front door, as their owners and a security reviewer meet them."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest

from tests.support.fix_mesh import Mesh, Tenant, eventually
from tests.support.scripted_issuer import ScriptedIssuer
from tests.support.scripted_provider import ScriptedProvider

ADMIN_DOORS = ("/v1/tenants", "/v1/providers", "/v1/cache/stats")
"""Of billing, of the router and of the cache: no room takes another's word for a key."""


async def statuses(mesh: Mesh, key: str, paths: tuple[str, ...]) -> list[int]:
    headers = {"authorization": f"Bearer {key}"}
    return [(await mesh.http.get(path, headers=headers)).status_code for path in paths]


async def seconds_until(look: Any) -> float:
    """How long it takes until `look` gives something true."""
    begun = time.monotonic()
    await eventually(look)
    return time.monotonic() - begun


async def rotated(tenant: Tenant, **body: Any) -> Any:
    path = f"/v1/tenants/{tenant.id}/keys/{tenant.key_id}:rotate"
    return (await tenant.mesh.http.post(path, headers=tenant.mesh.admin, json=body)).raise_for_status().json()


async def test_the_openai_client_is_told_its_limits_and_when_to_come_back(mesh: Mesh, first: ScriptedProvider) -> None:
    tenant = await mesh.tenant(rate_limits={"each_key": {"requests_per_minute": 2, "tokens_per_minute": 5000}})
    messages: Any = [{"role": "user", "content": "Tell me of limits."}]
    for left in ("1", "0"):
        answer = await tenant.openai.chat.completions.with_raw_response.create(model="scripted", messages=messages)
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
        assert answer.headers["x-ratelimit-remaining-requests"] == left
        assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 5000
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
    for more in ({}, {"stream": True}):
        with pytest.raises(openai.RateLimitError) as caught:
            await tenant.openai.chat.completions.create(model="scripted", messages=messages, **more)
        assert caught.value.status_code == 429
        assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
        assert 0 < int(caught.value.response.headers["retry-after"]) <= 65
        assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_new_keys_own_policy_holds_from_its_first_request_on(mesh: Mesh, first: ScriptedProvider) -> None:
    tenant = await mesh.tenant()
    for number in range(20):
        await tenant.key(policy={"allowed_models": ["scripted-other"]})
        assert (await tenant.chat(f"Am I fast enough, {number}?")).status_code == 403
    await tenant.key(policy={"rate_limits": {"requests_per_minute": 1}})
    answers = await asyncio.gather(*(tenant.chat(f"At once, {n}.") for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 7
    described = await mesh.http.get(f"/v1/tenants/{tenant.id}/keys/{tenant.key_id}", headers=mesh.admin)
    assert described.json()["key"]["policy"] == {"rate_limits": {"requests_per_minute": "1"}}


async def test_a_burst_gets_exactly_what_its_limit_allows(mesh: Mesh, first: ScriptedProvider) -> None:
    tenant = await mesh.tenant(rate_limits={"tenant": {"requests_per_minute": 20}})
    answers = await asyncio.gather(*(tenant.chat(f"Burst {n}.") for n in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 20 + [429] * 30


async def test_a_change_of_limits_and_models_holds_within_a_second(tenant: Tenant, mesh: Mesh) -> None:
    assert (await tenant.chat("Unlimited.")).status_code == 200
    path = f"/v1/tenants/{tenant.id}/keys/{tenant.key_id}"
    body = {"policy": {"allowed_models": ["scripted-other"]}}
    (await mesh.http.patch(path, headers=mesh.admin, json=body)).raise_for_status()

    async def narrowed() -> bool:
        return (await tenant.chat("May I?")).status_code == 403

    assert await seconds_until(narrowed) < 1


async def test_a_teams_models_hold_for_its_keys_within_a_second(mesh: Mesh, first: ScriptedProvider) -> None:
    tenant = await mesh.tenant()
    await tenant.key(team_id="red")
    assert (await tenant.chat("Not narrowed yet.")).status_code == 200
    path = f"/v1/tenants/{tenant.id}/teams/red"
    body = {"policy": {"allowed_models": ["scripted-other"]}}
    (await mesh.http.patch(path, headers=mesh.admin, json=body)).raise_for_status()

    async def narrowed() -> bool:
        return (await tenant.chat("May my team?")).status_code == 403

    assert await seconds_until(narrowed) < 1


async def test_a_revoked_key_opens_no_door_of_any_room_within_a_second(mesh: Mesh) -> None:
    tenant = await mesh.tenant()
    key = await tenant.key(roles=["ROLE_ADMIN"])
    assert await statuses(mesh, key, (*ADMIN_DOORS, "/v1/models")) == [200] * 4
    path = f"/v1/tenants/{tenant.id}/keys/{tenant.key_id}:revoke"
    (await mesh.http.post(path, headers=mesh.admin, json={})).raise_for_status()

    async def shut() -> bool:
        doors = (*ADMIN_DOORS, "/v1/models", "/v1/compliance/packs")
        return set(await statuses(mesh, key, doors)) == {401}

    assert await seconds_until(shut) < 1
    refused = (await mesh.http.get("/v1/tenants", headers={"authorization": f"Bearer {key}"})).json()
    assert refused["error"]["code"] == "invalid_api_key"


async def test_a_deleted_tenant_is_shut_everywhere_within_a_second_and_its_books_stay(
    mesh: Mesh, first: ScriptedProvider
) -> None:
    tenant = await mesh.tenant()
    path = f"/v1/tenants/{tenant.id}"
    assert (await tenant.chat("Remember me.")).status_code == 200
    await tenant.usage(rows=1)
    refused = await mesh.http.delete(path, headers=mesh.admin)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "resource_in_use")
    (await mesh.http.delete(f"{path}?force=true", headers=mesh.admin)).raise_for_status()

    async def shut() -> bool:
        return set(await statuses(mesh, tenant.token, (*ADMIN_DOORS, "/v1/models"))) == {401}

    assert await seconds_until(shut) < 1
    assert (await tenant.chat("Remember me.")).status_code == 401
    assert len(await tenant.usage(rows=1)) == 1
    assert (await mesh.http.post(f"{path}/keys", headers=mesh.admin, json={})).status_code == 404
    (await mesh.http.post(f"{path}:undelete", headers=mesh.admin, json={})).raise_for_status()
    await tenant.key()
    assert (await tenant.chat("I am back.")).status_code == 200


async def test_changes_name_their_version_and_are_made_once(mesh: Mesh) -> None:
    tenant = await mesh.tenant()
    path = f"/v1/tenants/{tenant.id}"
    read = (await mesh.http.get(path, headers=mesh.admin)).json()["tenant"]
    body = {"display_name": "New", "etag": read["etag"], "request_id": str(uuid4())}
    answers = [await mesh.http.patch(path, headers=mesh.admin, json=body) for _ in range(2)]
    assert [answer.json()["tenant"]["display_name"] for answer in answers] == ["New", "New"]
    stale = await mesh.http.patch(path, headers=mesh.admin, json={**body, "request_id": str(uuid4())})
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "version_conflict")
    other = await mesh.http.patch(path, headers=mesh.admin, json={**body, "display_name": "Newer"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "request_conflict")
    key = {"display_name": "ci", "request_id": str(uuid4())}
    made = [(await mesh.http.post(f"{path}/keys", headers=mesh.admin, json=key)).json() for _ in range(2)]
    assert made[0] == made[1]
    mesh.secrets.add(made[0]["token"])
    named = (await mesh.http.get(f"{path}/keys?live=true&tag=%25", headers=mesh.admin)).json()
    assert named.get("keys", []) == []


async def test_a_rotated_key_and_its_successor_are_good_side_by_side(mesh: Mesh, first: ScriptedProvider) -> None:
    tenant = await mesh.tenant()
    answer = await rotated(tenant, overlap="3600s")
    successor = Tenant(mesh, tenant.id, answer["token"], answer["key"]["id"])
    assert [(await each.chat("Both?")).status_code for each in (tenant, successor)] == [200, 200]
    ended = await rotated(successor, overlap="0s")

    async def shut() -> bool:
        return (await successor.chat("Still?")).status_code == 401

    assert await seconds_until(shut) < 1
    assert (await Tenant(mesh, tenant.id, ended["token"]).chat("The third.")).status_code == 200
    assert (await tenant.chat("The first, in its overlap.")).status_code == 200


async def test_a_user_of_another_issuer_asks_and_is_on_the_books_by_name(
    mesh: Mesh, corp: ScriptedIssuer, first: ScriptedProvider
) -> None:
    user = Tenant(mesh, "demo", corp.token(sub="ada@example.com", groups=["users"]))
    answer = await user.openai.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "Who am I to you?"}]
    )
    assert answer.choices[0].message.content
    assert await statuses(mesh, user.token, ADMIN_DOORS[:2]) == [403, 403]
    stranger = Tenant(mesh, "demo", corp.token(sub="eve@example.com", groups=["admins"], roles="admin"))
    assert (await stranger.chat("Let me in.")).status_code == 403

    async def booked() -> bool:
        rows = (await user.admin_get("/usage")).get("records", [])
        return "corp:ada@example.com" in {row["key_id"] for row in rows}

    await eventually(booked)


async def test_another_tenants_names_do_not_exist(mesh: Mesh) -> None:
    mine, theirs = await mesh.tenant(), await mesh.tenant()
    await mine.key(roles=["ROLE_FINANCE", "ROLE_AUDITOR"])
    doors = (
        "", "/keys", "/keys/key-1", "/teams", "/teams/red", "/budget", "/budgets", "/budget-events", "/usage",
        "/usage:summary", "/report", "/audit", "/audit/chain", "/audit/checkpoints", "/violations",
        "/contents/some-request",
    )  # fmt: skip
    seen = {
        path: [
            (await mesh.http.get(f"/v1/tenants/{name}{path}", headers=mine.headers)).status_code
            for name in (theirs.id, "no-such-tenant")
        ]
        for path in doors
    }
    assert {path: codes for path, codes in seen.items() if codes != [404, 404]} == {}


@pytest.mark.parametrize("wild", ["%25", "_", "t%25", "'", "%27%20or%20%271%27=%271", "%2525", "*"])
async def test_wildcards_and_quotes_name_nobody(mesh: Mesh, wild: str) -> None:
    mine = await mesh.tenant()
    await mine.key(roles=["ROLE_FINANCE", "ROLE_AUDITOR"])
    for headers in (mine.headers, mesh.admin):
        assert (await mesh.http.get(f"/v1/tenants/{wild}", headers=headers)).status_code in (400, 404)
        assert (await mesh.http.get(f"/v1/tenants/{wild}/usage", headers=headers)).status_code in (400, 404)
    usage = await mesh.http.get(f"/v1/tenants/{mine.id}/usage?key_id={wild}&team_id={wild}", headers=mine.headers)
    assert usage.status_code in (200, 400)
    assert usage.json().get("records", []) == []


async def test_a_page_token_of_one_list_opens_no_other(mesh: Mesh) -> None:
    mine, theirs = await mesh.tenant(), await mesh.tenant()
    for _ in range(2):
        await theirs.key()

    async def page(path: str, headers: dict[str, str]) -> httpx.Response:
        return await mesh.http.get(path, headers=headers)

    token = (await page(f"/v1/tenants/{theirs.id}/keys?page_size=1", mesh.admin)).json()["next_page_token"]
    await mine.key(roles=["ROLE_AUDITOR", "ROLE_FINANCE"])
    for path in ("/keys", "/usage", "/audit", "/violations", "/budgets"):
        answer = await page(f"/v1/tenants/{mine.id}{path}?page_size=1&page_token={token}", mine.headers)
        assert answer.status_code == 400, path
        assert answer.json()["error"]["param"].endswith("page_token"), path
    for forged in ("bm9uc2Vuc2U", "W10", "..", "%00"):
        answer = await page(f"/v1/tenants/{mine.id}/keys?page_token={forged}", mine.headers)
        assert answer.status_code == 400, forged
