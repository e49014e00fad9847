"""Tenants, their keys, and policies pushed to whoever watches."""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import grpc
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.access.v1 import access_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import ADMIN, RUBLE, Room

_numbers = count()


@pytest.fixture
def name() -> str:
    """An id no other test uses."""
    return f"tenant-{next(_numbers)}"


Method = Callable[[Any], Awaitable[object]]


async def refusal(method: Method, request: object, caller: Identity = ADMIN) -> grpc.aio.AioRpcError:
    with acting_as(caller), pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(request)
    return caught.value


async def field_refused(method: Method, request: object) -> str:
    """The field a refusal names."""
    info = error_info(await refusal(method, request))
    assert info
    assert info.reason == "FIELD_INVALID"
    return str(info.metadata["field"])


async def reason_refused(method: Method, request: object, caller: Identity = ADMIN) -> str | None:
    """The reason of a refusal."""
    return error_reason(await refusal(method, request, caller))


def claims(token: str) -> dict[str, object]:
    """What a token says, unverified."""
    body = token.split(".")[1]
    decoded: dict[str, object] = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return decoded


async def test_a_tenant_is_made_with_its_budget_and_read_back(room: Room, name: str) -> None:
    policy = tenant_pb2.Policy(
        allowed_models=["small"],
        allowed_deployments=["local/small"],
        residency=chat_pb2.DATA_RESIDENCY_RUSSIA,
        cache=tenant_pb2.CACHE_POLICY_EXACT,
        cache_limits=tenant_pb2.CacheLimits(largest_answer_bytes=9000, highest_temperature=0),
        guard_fail_open=True,
        tier=chat_pb2.TIER_PRO,
        routing_strategy=chat_pb2.ROUTING_STRATEGY_LATENCY,
        tags=["pilot"],
        guard=tenant_pb2.GuardPolicy(mask=True, sampled_share=0.25, fail_open_layers=["azure"]),
    )
    policy.cache_limits.max_ttl.FromSeconds(90)
    request = tenant_pb2.CreateTenantRequest(
        tenant_id=name, display_name="Акме", policy=policy, budget_limit_micros=5 * RUBLE, currency_code="USD"
    )
    with acting_as(ADMIN):
        made = (await room.tenants.CreateTenant(request)).tenant
        read = (await room.tenants.GetTenant(tenant_pb2.GetTenantRequest(tenant_id=name))).tenant
    assert (made.id, made.display_name, made.policy) == (name, "Акме", policy)
    assert read == made
    budget = await room.budget(Identity(name))
    assert (budget.limit_micros, budget.currency_code, budget.spent_micros) == (5 * RUBLE, "USD", 0)


async def test_a_taken_id_is_refused(room: Room, name: str) -> None:
    await room.tenant(name)
    request = tenant_pb2.CreateTenantRequest(tenant_id=name)
    assert await reason_refused(room.tenants.CreateTenant, request) == "RESOURCE_EXISTS"


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("tenant_id", {"tenant_id": ""}),
        ("tenant_id", {"tenant_id": "a"}),
        ("tenant_id", {"tenant_id": "Big"}),
        ("tenant_id", {"tenant_id": "-a"}),
        ("tenant_id", {"tenant_id": "a" * 64}),
        ("tenant_id", {"tenant_id": "a/b"}),
        ("display_name", {"display_name": "a\nb"}),
        ("display_name", {"display_name": "a" * 201}),
        ("budget_limit_micros", {"budget_limit_micros": -1}),
        ("budget_limit_micros", {"budget_limit_micros": 2**62}),
        ("currency_code", {"currency_code": "rub"}),
        ("currency_code", {"currency_code": "XXX"}),
        ("policy.residency", {"policy": {"residency": 99}}),
        ("policy.cache", {"policy": {"cache": 99}}),
        ("policy.tier", {"policy": {"tier": 99}}),
        ("policy.routing_strategy", {"policy": {"routing_strategy": 99}}),
        ("policy.tags", {"policy": {"tags": [""]}}),
        ("policy.allowed_models", {"policy": {"allowed_models": [""]}}),
        ("policy.cache_limits.max_ttl", {"policy": {"cache_limits": {"max_ttl": timedelta(0)}}}),
        ("policy.cache_limits.default_ttl", {"policy": {"cache_limits": {"default_ttl": timedelta(days=31)}}}),
        (
            "policy.cache_limits.min_ttl",
            {"policy": {"cache_limits": {"min_ttl": timedelta(hours=2), "max_ttl": timedelta(hours=1)}}},
        ),
        ("policy.cache_limits.largest_answer_bytes", {"policy": {"cache_limits": {"largest_answer_bytes": -1}}}),
        ("policy.cache_limits.highest_temperature", {"policy": {"cache_limits": {"highest_temperature": 3}}}),
    ],
)
async def test_a_bad_field_of_a_tenant_is_named(room: Room, field: str, fields: dict[str, object]) -> None:
    request = tenant_pb2.CreateTenantRequest(**{"tenant_id": "good", **fields})  # type: ignore[arg-type]
    assert await field_refused(room.tenants.CreateTenant, request) == field


async def test_updating_changes_what_is_given_and_keeps_the_rest(room: Room, name: str) -> None:
    await room.tenant(name, display_name="old", policy=tenant_pb2.Policy(allowed_models=["small"]))
    with acting_as(ADMIN):
        renamed = await room.tenants.UpdateTenant(tenant_pb2.UpdateTenantRequest(tenant_id=name, display_name="new"))
        replaced = await room.tenants.UpdateTenant(
            tenant_pb2.UpdateTenantRequest(tenant_id=name, policy=tenant_pb2.Policy(guard_fail_open=True))
        )
        untouched = await room.tenants.UpdateTenant(tenant_pb2.UpdateTenantRequest(tenant_id=name))
    assert (renamed.tenant.display_name, list(renamed.tenant.policy.allowed_models)) == ("new", ["small"])
    assert (replaced.tenant.display_name, list(replaced.tenant.policy.allowed_models)) == ("new", [])
    assert replaced.tenant.policy.guard_fail_open
    assert untouched.tenant == replaced.tenant


async def test_what_does_not_exist_is_not_found(room: Room) -> None:
    nobody = "no-such-tenant"
    calls = (
        (room.tenants.GetTenant, tenant_pb2.GetTenantRequest(tenant_id=nobody)),
        (room.tenants.UpdateTenant, tenant_pb2.UpdateTenantRequest(tenant_id=nobody)),
        (room.tenants.UpdateTenant, tenant_pb2.UpdateTenantRequest(tenant_id=nobody, display_name="x")),
        (room.tenants.CreateKey, tenant_pb2.CreateKeyRequest(tenant_id=nobody)),
        (room.tenants.ListKeys, tenant_pb2.ListKeysRequest(tenant_id=nobody)),
        (room.tenants.RevokeKey, tenant_pb2.RevokeKeyRequest(tenant_id=nobody, key_id="k")),
    )
    for method, request in calls:
        assert await reason_refused(method, request) == "RESOURCE_NOT_FOUND"


async def test_finance_and_auditors_see_their_own_tenant_alone(room: Room, name: str) -> None:
    await room.tenant(name)
    await room.tenant(f"{name}-other")
    auditor = Identity(name, "key-2", frozenset({"auditor"}), "req")
    with acting_as(auditor):
        own = await room.tenants.GetTenant(tenant_pb2.GetTenantRequest(tenant_id=name))
        listed = await room.tenants.ListTenants(tenant_pb2.ListTenantsRequest())
    assert own.tenant.id == name
    assert [tenant.id for tenant in listed.tenants] == [name]
    for method, request in (
        (room.tenants.GetTenant, tenant_pb2.GetTenantRequest(tenant_id=f"{name}-other")),
        (room.tenants.ListKeys, tenant_pb2.ListKeysRequest(tenant_id=f"{name}-other")),
    ):
        assert await reason_refused(method, request, auditor) == "RESOURCE_NOT_FOUND"


async def test_tenants_are_listed_by_id_in_pages(room: Room, name: str) -> None:
    made = [f"{name}-{letter}" for letter in "cab"]
    for tenant in made:
        await room.tenant(tenant)
    listed: list[str] = []
    token = ""
    with acting_as(ADMIN):
        while True:
            page = await room.tenants.ListTenants(tenant_pb2.ListTenantsRequest(page_size=2, page_token=token))
            assert len(page.tenants) <= 2
            listed += [tenant.id for tenant in page.tenants]
            token = page.next_page_token
            if not token:
                break
    assert listed == sorted(listed)
    assert sorted(made) == [tenant for tenant in listed if tenant.startswith(f"{name}-")]


@pytest.mark.parametrize("token", ["nonsense", "W10", "bnVsbA", "WyJ0ZW5hbnRzIiwieCIsInkiXQ"])
async def test_a_page_token_from_elsewhere_is_refused(room: Room, token: str) -> None:
    request = tenant_pb2.ListTenantsRequest(page_token=token)
    assert await field_refused(room.tenants.ListTenants, request) == "page_token"


async def test_a_negative_page_size_is_refused(room: Room) -> None:
    assert await field_refused(room.tenants.ListTenants, tenant_pb2.ListTenantsRequest(page_size=-1)) == "page_size"


async def test_a_key_is_a_token_that_the_published_key_set_verifies(room: Room, name: str) -> None:
    await room.tenant(name)
    expires = Timestamp()
    expires.FromDatetime(datetime.now(UTC) + timedelta(days=30))
    roles = [access_pb2.ROLE_FINANCE, access_pb2.ROLE_DEVELOPER, access_pb2.ROLE_FINANCE]
    with acting_as(ADMIN):
        made = await room.tenants.CreateKey(
            tenant_pb2.CreateKeyRequest(tenant_id=name, display_name="ci", roles=roles, expire_time=expires)
        )
    jwks = await room.tenants.GetJwks(tenant_pb2.GetJwksRequest())
    assert jwks.content_type == "application/jwk-set+json"
    [public] = orjson.loads(jwks.data)["keys"]
    assert (public["kty"], public["crv"], public["alg"], public["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    assert "d" not in public
    head, body, signature = (base64.urlsafe_b64decode(part + "==") for part in made.token.split("."))
    assert orjson.loads(head) == {"alg": "EdDSA", "kid": public["kid"], "typ": "JWT"}
    Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(public["x"] + "==")).verify(
        signature, made.token.rpartition(".")[0].encode()
    )
    said = orjson.loads(body)
    assert said == {
        "iss": "llmmesh", "aud": "llmmesh", "sub": made.key.id, "jti": made.key.id, "tenant": name,
        "roles": "developer finance", "iat": made.key.create_time.seconds, "exp": expires.seconds,
    }  # fmt: skip
    assert list(made.key.roles) == [access_pb2.ROLE_DEVELOPER, access_pb2.ROLE_FINANCE]


async def test_the_key_set_may_be_cached(room: Room) -> None:
    call = room.tenants.GetJwks(tenant_pb2.GetJwksRequest())
    await call
    assert dict(await call.initial_metadata())["cache-control"] == "public, max-age=300"


async def test_a_key_without_wishes_is_a_developers_for_a_year(room: Room, name: str) -> None:
    await room.tenant(name)
    with acting_as(ADMIN):
        made = await room.tenants.CreateKey(tenant_pb2.CreateKeyRequest(tenant_id=name))
    said = claims(made.token)
    assert said["roles"] == "developer"
    assert said["exp"] == pytest.approx(time.time() + 365 * 86400, abs=60)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("roles", {"roles": [access_pb2.ROLE_UNSPECIFIED]}),
        ("roles", {"roles": [99]}),
        ("expire_time", {"expire_time": Timestamp(seconds=1)}),
        ("expire_time", {"expire_time": Timestamp(seconds=2**40)}),
        ("expire_time", {"expire_time": Timestamp(seconds=4_000_000_000)}),
        ("display_name", {"display_name": "\0"}),
    ],
)
async def test_a_bad_field_of_a_key_is_named(room: Room, field: str, fields: dict[str, object]) -> None:
    request = tenant_pb2.CreateKeyRequest(tenant_id="good", **fields)  # type: ignore[arg-type]
    assert await field_refused(room.tenants.CreateKey, request) == field


async def test_the_token_is_never_shown_again_nor_kept(room: Room, name: str) -> None:
    await room.tenant(name)
    with acting_as(ADMIN):
        made = await room.tenants.CreateKey(tenant_pb2.CreateKeyRequest(tenant_id=name))
        listed = await room.tenants.ListKeys(tenant_pb2.ListKeysRequest(tenant_id=name))
    assert [key.id for key in listed.keys] == [made.key.id]
    with room.database() as database:
        [row] = database.execute("SELECT k::text FROM keys k WHERE id = %s", [made.key.id]).fetchall()
    assert made.token not in row[0]
    assert made.token.rpartition(".")[2] not in row[0]


async def test_keys_are_listed_newest_first_in_pages(room: Room, name: str) -> None:
    await room.tenant(name)
    made: set[str] = set()
    for _ in range(5):
        with acting_as(ADMIN):
            made.add((await room.tenants.CreateKey(tenant_pb2.CreateKeyRequest(tenant_id=name))).key.id)
    listed: list[tenant_pb2.Key] = []
    token = ""
    for size in (2, 2, 1):
        request = tenant_pb2.ListKeysRequest(tenant_id=name, page_size=2, page_token=token)
        with acting_as(ADMIN):
            page = await room.tenants.ListKeys(request)
        assert len(page.keys) == size
        listed += page.keys
        token = page.next_page_token
    assert not token
    assert {key.id for key in listed} == made
    times = [key.create_time.ToNanoseconds() for key in listed]
    assert times == sorted(times, reverse=True)


async def test_a_revoked_key_stays_revoked_since_the_first_time(room: Room, name: str) -> None:
    await room.tenant(name)
    with acting_as(ADMIN):
        key = (await room.tenants.CreateKey(tenant_pb2.CreateKeyRequest(tenant_id=name))).key
        request = tenant_pb2.RevokeKeyRequest(tenant_id=name, key_id=key.id)
        first = await room.tenants.RevokeKey(request)
        again = await room.tenants.RevokeKey(request)
    assert first.key.HasField("revoke_time")
    assert again == first


async def test_another_tenants_key_cannot_be_revoked(room: Room, name: str) -> None:
    await room.tenant(name)
    await room.tenant(f"{name}-other")
    with acting_as(ADMIN):
        key = (await room.tenants.CreateKey(tenant_pb2.CreateKeyRequest(tenant_id=name))).key
    request = tenant_pb2.RevokeKeyRequest(tenant_id=f"{name}-other", key_id=key.id)
    assert await reason_refused(room.tenants.RevokeKey, request) == "RESOURCE_NOT_FOUND"


async def test_roles_are_asked_for(room: Room, name: str) -> None:
    developer = await room.tenant(name)
    for method, request in (
        (room.tenants.CreateTenant, tenant_pb2.CreateTenantRequest(tenant_id=f"{name}-x")),
        (room.tenants.GetTenant, tenant_pb2.GetTenantRequest(tenant_id=name)),
        (room.tenants.CreateKey, tenant_pb2.CreateKeyRequest(tenant_id=name)),
    ):
        assert await reason_refused(method, request, developer) == "ROLE_MISSING"
