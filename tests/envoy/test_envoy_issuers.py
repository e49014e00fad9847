"""Access tokens of another issuer at the edge: who they stand for, and who gets nothing by them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from pydantic import ValidationError

from deploy.envoy.issuers import read_issuers
from llmmesh.gateway.v1 import gateway_pb2
from llmmesh.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.envoy.rooms import SigningKey, billing_room, gateway_room
from tests.support.fix_envoy import RunningEnvoy, running_envoy
from tests.support.scripted_issuer import AUDIENCE, ISSUER, ScriptedIssuer, scripted_issuer

CHAT = "/v1/chat/completions"


def settings(jwks_uri: str = "https://id.example.com/jwks", **changed: Any) -> dict[str, Any]:
    return {
        "name": "corp",
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "jwks_uri": jwks_uri,
        "jwks_seconds": 1,
        "tenants": [
            {"claim": "org", "value": 'Acme "quoted" [[GmbH]]\n', "tenant": "acme"},
            {"claim": ["resource", "org"], "value": "beta", "tenant": "beta"},
        ],
        "roles": [
            {"role": "developer", "claim": "groups", "value": "llm-users"},
            {"role": "developer", "claim": "scope", "value": "llm.use"},
            {"role": "admin", "claim": "groups", "value": "llm-admins", "acr": ["gold"], "amr": ["mfa", "hwk"]},
        ],
        **changed,
    }


def written(folder: Path, *issuers: dict[str, Any]) -> Path:
    path = folder / "issuers.yaml"
    path.write_text(yaml.safe_dump({"issuers": list(issuers)}))
    return path


ACME = {"org": 'Acme "quoted" [[GmbH]]\n', "groups": ["staff", "llm-users"]}
STRONG = {"acr": "gold", "amr": ["pwd", "mfa"]}


@pytest.fixture(scope="module")
async def corp() -> AsyncIterator[ScriptedIssuer]:
    async with scripted_issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
async def door(
    issuer: SigningKey, corp: ScriptedIssuer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningEnvoy]:
    """An edge that takes tokens of `corp` beside our own."""
    folder = tmp_path_factory.mktemp("issuers")
    issuers = read_issuers(written(folder, settings(corp.jwks_uri)))
    async with gateway_room() as gateway, billing_room(issuer) as billing:
        rooms = {"gateway": [gateway], "billing": [billing]}
        async with running_envoy(rooms, folder, issuers=issuers, jwks_seconds=1) as envoy:
            await envoy.healthy("gateway")
            await envoy.healthy("billing")
            yield envoy


@pytest.fixture(scope="module")
async def http(door: RunningEnvoy) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=door.url, timeout=20) as client:
        yield client


async def asked(http: httpx.AsyncClient, token: str, **headers: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await http.post(CHAT, json={"do": "echo"}, headers=headers)


async def identity(http: httpx.AsyncClient, token: str, **headers: str) -> dict[str, str]:
    """Who the rooms take the caller for."""
    metadata = (await asked(http, token, **headers)).raise_for_status().json()["metadata"]
    return {name.removeprefix("x-llmmesh-"): value for name, value in metadata.items() if "x-llmmesh-" in name}


async def test_claims_become_tenant_user_and_roles_by_the_rules(http: httpx.AsyncClient, corp: ScriptedIssuer) -> None:
    assert await identity(http, corp.token(**ACME)) == {
        "tenant": "acme",
        "key": "corp:ada",
        "user": "corp:ada",
        "roles": "developer",
    }
    nested = corp.token(resource={"org": "beta"}, scope="openid llm.use", sub="bob@example.com")
    assert await identity(http, nested) == {
        "tenant": "beta",
        "key": "corp:bob@example.com",
        "user": "corp:bob@example.com",
        "roles": "developer",
    }


async def test_our_own_keys_go_on_as_before(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    seen = await identity(http, issuer.token())
    assert seen == {"tenant": "acme", "key": "key-1", "roles": "developer finance"}


async def test_nobody_says_who_he_is_by_headers(
    http: httpx.AsyncClient, corp: ScriptedIssuer, issuer: SigningKey
) -> None:
    spoofed = {
        "x_llmmesh_tenant": "beta",
        "x_llmmesh_key": "key-9",
        "x_llmmesh_user": "corp:boss",
        "x_llmmesh_roles": "admin developer",
    }
    assert (await identity(http, corp.token(**ACME), **spoofed))["roles"] == "developer"
    assert "user" not in await identity(http, issuer.token(), **spoofed)


@pytest.mark.parametrize(
    ("how", "roles"),
    [
        ({}, "developer"),
        ({"acr": "gold"}, "developer"),
        ({"amr": ["mfa"]}, "developer"),
        ({"acr": "silver", "amr": ["mfa"]}, "developer"),
        ({"acr": "gold", "amr": ["pwd"]}, "developer"),
        (STRONG, "developer admin"),
        ({"acr": "gold", "amr": "hwk"}, "developer admin"),
    ],
)
async def test_a_role_may_ask_for_strong_authentication(
    http: httpx.AsyncClient, corp: ScriptedIssuer, how: dict[str, Any], roles: str
) -> None:
    token = corp.token(**{**ACME, "groups": ["llm-users", "llm-admins"], **how})
    assert (await identity(http, token))["roles"] == roles


@pytest.mark.parametrize(
    "claims",
    [
        {"roles": "admin"},
        {"roles": ["admin", "operator"]},
        {"groups": ["admin", "llm-users"]},
        {"groups": ["llm-users llm-admins", "llm-users"], **STRONG},
        {"scope": "llm-admins llm.use admin", **STRONG},
        {"x-llmmesh-roles": "admin", "tenant": "beta"},
        {"groups": {"llm-admins": True, "1": "llm-users"}, "scope": "llm.use", **STRONG},
        {"resource": {"groups": ["llm-admins"]}, **STRONG},
    ],
)
async def test_claims_grant_nothing_that_no_rule_grants(
    http: httpx.AsyncClient, corp: ScriptedIssuer, claims: dict[str, Any]
) -> None:
    seen = await identity(http, corp.token(**{**ACME, **claims}))
    assert (seen["tenant"], seen["roles"]) == ("acme", "developer")


async def test_a_user_without_a_role_may_call_nothing(http: httpx.AsyncClient, corp: ScriptedIssuer) -> None:
    refused = await asked(http, corp.token(org=ACME["org"]))
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "role_missing"


@pytest.mark.parametrize(
    "claims",
    [{"org": "other"}, {"org": ["x"]}, {"org": "acme"}, {"resource": "beta"}, {}],
)
async def test_a_token_of_no_tenant_is_refused(
    http: httpx.AsyncClient, corp: ScriptedIssuer, claims: dict[str, Any]
) -> None:
    refused = await asked(http, corp.token(groups=["llm-users"], **claims))
    assert refused.status_code == 403
    assert refused.json()["error"]["message"] == "This token belongs to no tenant here."


@pytest.mark.parametrize("sub", ["", "a b", "x" * 129, "a\r\nx-llmmesh-roles: admin", "Ада", 7, None])
async def test_a_name_that_is_no_users_is_refused(http: httpx.AsyncClient, corp: ScriptedIssuer, sub: Any) -> None:
    refused = await asked(http, corp.token(**{**ACME, "sub": sub}))
    assert refused.status_code in (401, 403)


async def test_tokens_that_prove_nothing_are_unauthenticated(
    http: httpx.AsyncClient, corp: ScriptedIssuer, issuer: SigningKey
) -> None:
    now = int(time.time())
    stranger = ScriptedIssuer()
    tokens = {
        "signed by a stranger": stranger.token(**ACME),
        "unsigned": corp.unsigned(**ACME),
        "expired": corp.token(**ACME, exp=now - 3600),
        "not yet good": corp.token(**ACME, nbf=now + 3600),
        "without an end": corp.token(without=["exp"], **ACME),
        "for another audience": corp.token(**ACME, aud="billing"),
        "of an issuer nobody knows": corp.token(**ACME, iss="https://evil.example.com"),
        "an issuer's that says it is ours": corp.token(**ACME, iss="llmmesh", aud="llmmesh", roles="admin"),
        "ours that says it is the issuer's": issuer.token(iss=ISSUER, aud=AUDIENCE, **ACME),
        "cut": corp.token(**ACME)[:-6],
    }
    seen = {how: (await asked(http, token)).status_code for how, token in tokens.items()}
    assert seen == dict.fromkeys(tokens, 401)


async def test_native_calls_are_judged_the_same(door: RunningEnvoy, corp: ScriptedIssuer) -> None:
    async with grpc.aio.insecure_channel(door.grpc_target) as channel:
        stub: Any = GatewayServiceStub(channel)

        async def called(token: str) -> Any:
            metadata = (("authorization", f"Bearer {token}"),)
            return await stub.ListModels(gateway_pb2.ListModelsRequest(), metadata=metadata, timeout=10)

        answer = await called(corp.token(**ACME))
        assert answer.models[0].name.startswith("acme/corp:ada/")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await called(corp.token(groups=["llm-users"]))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_rotated_keys_are_fetched_and_dropped_ones_forgotten(
    http: httpx.AsyncClient, corp: ScriptedIssuer
) -> None:
    old = corp.keys[-1]
    before = corp.token(old, **ACME)
    corp.new_key()

    async def until(token: str, status: int) -> None:
        async with asyncio.timeout(15):
            while (await asked(http, token)).status_code != status:
                fetched = corp.fetches
                while corp.fetches == fetched:  # noqa: ASYNC110 - the issuer cannot wake us
                    await asyncio.sleep(0.05)

    await until(corp.token(**ACME), 200)
    assert (await asked(http, before)).status_code == 200, "the old key is published still"
    corp.keys.remove(old)
    await until(before, 401)
    assert (await asked(http, corp.token(**ACME))).status_code == 200


async def test_our_own_keys_are_good_while_another_issuer_is_away(issuer: SigningKey, tmp_path: Path) -> None:
    issuers = read_issuers(written(tmp_path, settings("http://127.0.0.1:9/jwks")))
    async with gateway_room() as gateway, billing_room(issuer) as billing:
        rooms = {"gateway": [gateway], "billing": [billing]}
        async with (
            running_envoy(rooms, tmp_path, issuers=issuers) as envoy,
            httpx.AsyncClient(base_url=envoy.url, timeout=20) as client,
        ):
            await envoy.healthy("gateway")
            await envoy.healthy("billing")
            assert (await asked(client, issuer.token())).status_code == 200
            away = await asked(client, ScriptedIssuer().token(**ACME))
            assert away.status_code == 503
            assert away.json()["error"]["code"] == "authentication_unavailable"


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"jwks_uri": "http://id.example.com/jwks"}, "must be https"),
        ({"jwks_uri": "ftp://id.example.com/jwks"}, "must be a URL"),
        ({"issuer": "llmmesh"}, "is our own"),
        ({"roles": [{"role": "admin"}]}, "must name a claim"),
        ({"roles": [{"role": "root", "claim": "a", "value": "b"}]}, "must be one of"),
        ({"roles": [{"role": "admin", "claim": "a"}]}, "go together"),
        ({"tenants": []}, "at least 1"),
        ({"audiences": []}, "at least 1"),
        ({"tenants": [{"tenant": "No Tenant"}]}, "pattern"),
        ({"rolls": []}, "Extra inputs"),
    ],
)
def test_an_issuer_that_cannot_be_meant_is_refused(tmp_path: Path, changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        read_issuers(written(tmp_path, settings(**changed)))


def test_two_issuers_of_one_name_are_refused(tmp_path: Path) -> None:
    one = settings()
    with pytest.raises(ValueError, match="the same name"):
        read_issuers(written(tmp_path, one, {**one, "issuer": "https://other.example.com"}))
