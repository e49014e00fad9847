"""Keys narrowed, changed and replaced; limits that cannot be kept are refused by name."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from llmmesh.access.v1 import access_pb2
from llmmesh.billing.v1 import budgets_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_info
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import ADMIN, RUBLE, Room, billing_room

_numbers = count()
POLICY = tenant_pb2.KeyPolicy(
    allowed_models=["m"], rate_limits=tenant_pb2.RateLimits(requests_per_minute=5, concurrent_streams=2)
)


@pytest.fixture
async def owner(room: Room) -> Identity:
    """A tenant no other test uses."""
    return await room.tenant(f"rotating-{next(_numbers)}")


async def made(room: Room, owner: Identity, **fields: Any) -> tenant_pb2.Key:
    with acting_as(ADMIN):
        request = tenant_pb2.CreateKeyRequest(tenant_id=owner.tenant_id, **fields)
        return (await room.tenants.CreateKey(request)).key


async def rotated(room: Room, key: tenant_pb2.Key, **fields: Any) -> tenant_pb2.RotateKeyResponse:
    with acting_as(ADMIN):
        return await room.tenants.RotateKey(
            tenant_pb2.RotateKeyRequest(tenant_id=key.tenant_id, key_id=key.id, **fields)
        )


async def field_of(method: Any, request: object) -> str:
    with acting_as(ADMIN), pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(request)
    info = error_info(caught.value)
    assert info
    return str(info.metadata.get("field", info.reason))


async def test_a_new_key_has_the_rights_of_the_old_one_that_lives_on_for_the_overlap(
    room: Room, owner: Identity
) -> None:
    old = await made(
        room,
        owner,
        display_name="ci",
        roles=[access_pb2.ROLE_DEVELOPER, access_pb2.ROLE_FINANCE],
        team_id="red",
        user_id="carol",
        tags=["ci"],
        policy=POLICY,
    )
    answer = await rotated(room, old, overlap=Duration(seconds=3600))
    new = answer.key
    assert new.id != old.id
    assert answer.token
    for field in ("display_name", "roles", "team_id", "user_id", "tags", "policy"):
        assert getattr(new, field) == getattr(old, field), field
    assert new.expire_time.seconds - new.create_time.seconds == old.expire_time.seconds - old.create_time.seconds
    assert answer.old_key.id == old.id
    assert answer.old_key.revoke_time.seconds - time.time() == pytest.approx(3600, abs=30)


async def test_a_new_key_spends_from_the_budget_of_the_old_one_however_often_it_is_rotated(
    room: Room, owner: Identity
) -> None:
    old = await made(room, owner)
    budget = budgets_pb2.CreateBudgetRequest(
        tenant_id=owner.tenant_id, budget_id="of-the-key", key_id=old.id, limit_micros=3 * RUBLE
    )
    with acting_as(ADMIN):
        await room.budgets.CreateBudget(budget)
    await room.commit(user(old), await room.reserve(user(old), "r1"))
    new = (await rotated(room, (await rotated(room, old)).key)).key
    held = await room.reserve(user(new), "r2")
    await room.reserve(user(old), "r3")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.reserve(user(new), "r4")
    refused = error_info(caught.value)
    assert refused
    assert refused.metadata["budget"] == f"tenants/{owner.tenant_id}/budgets/of-the-key"
    await room.commit(user(new), held)
    with acting_as(ADMIN):
        listing = budgets_pb2.ListBudgetsRequest(tenant_id=owner.tenant_id, key_id=new.id)
        [told] = (await room.budgets.ListBudgets(listing)).budgets
    assert (told.id, told.spent_micros, told.reserved_micros) == ("of-the-key", 2 * RUBLE, RUBLE)


def user(key: tenant_pb2.Key) -> Identity:
    return Identity(key.tenant_id, key.id, frozenset({"developer"}), "req")


async def test_a_rotated_key_can_be_revoked_sooner_but_not_later_nor_rotated_twice(room: Room, owner: Identity) -> None:
    old = await made(room, owner)
    await rotated(room, old)
    again = tenant_pb2.RotateKeyRequest(tenant_id=old.tenant_id, key_id=old.id)
    assert await field_of(room.tenants.RotateKey, again) == "key_id"
    revoke = tenant_pb2.RevokeKeyRequest(tenant_id=old.tenant_id, key_id=old.id)
    with acting_as(ADMIN):
        first, second = [(await room.tenants.RevokeKey(revoke)).key.revoke_time for _ in range(2)]
    assert first.seconds == pytest.approx(time.time(), abs=30)
    assert first == second


async def test_without_an_overlap_the_old_key_ends_at_once(room: Room, owner: Identity) -> None:
    answer = await rotated(room, await made(room, owner), overlap=Duration())
    assert answer.old_key.revoke_time.seconds == pytest.approx(time.time(), abs=30)


@pytest.mark.parametrize("overlap", [Duration(seconds=-1), Duration(seconds=30 * 86400 + 1), Duration(seconds=2**62)])
async def test_an_absurd_overlap_is_refused_by_name(room: Room, owner: Identity, overlap: Duration) -> None:
    key = await made(room, owner)
    request = tenant_pb2.RotateKeyRequest(tenant_id=key.tenant_id, key_id=key.id, overlap=overlap)
    assert await field_of(room.tenants.RotateKey, request) == "overlap"


async def test_another_tenants_key_does_not_exist(room: Room, owner: Identity) -> None:
    other = await room.tenant(f"rotating-{next(_numbers)}")
    key = await made(room, owner)
    tenants = room.tenants
    for method, request in (
        (tenants.RotateKey, tenant_pb2.RotateKeyRequest(tenant_id=other.tenant_id, key_id=key.id)),
        (tenants.UpdateKey, tenant_pb2.UpdateKeyRequest(tenant_id=other.tenant_id, key_id=key.id, policy=POLICY)),
        (tenants.RevokeKey, tenant_pb2.RevokeKeyRequest(tenant_id=other.tenant_id, key_id=key.id)),
        (tenants.RotateKey, tenant_pb2.RotateKeyRequest(tenant_id=owner.tenant_id, key_id="key-%")),
    ):
        assert await field_of(method, request) == "RESOURCE_NOT_FOUND"


async def test_a_changed_key_keeps_what_is_not_named(room: Room, owner: Identity) -> None:
    key = await made(room, owner, display_name="before", policy=POLICY)
    request = tenant_pb2.UpdateKeyRequest(tenant_id=key.tenant_id, key_id=key.id, display_name="after")
    with acting_as(ADMIN):
        changed = (await room.tenants.UpdateKey(request)).key
        assert (changed.display_name, changed.policy) == ("after", POLICY)
        request = tenant_pb2.UpdateKeyRequest(
            tenant_id=key.tenant_id, key_id=key.id, policy=tenant_pb2.KeyPolicy(allowed_models=["n"])
        )
        changed = (await room.tenants.UpdateKey(request)).key
    assert (changed.display_name, changed.policy.allowed_models) == ("after", ["n"])
    assert not changed.policy.HasField("rate_limits")


async def test_a_watcher_is_told_of_restricted_keys_first_and_as_they_change(room: Room, owner: Identity) -> None:
    key = await made(room, owner, policy=POLICY)
    async with billing_room(room.config) as replica:
        watch = aiter(replica.tenants.WatchPolicies(tenant_pb2.WatchPoliciesRequest()))
        assert key in (await anext(watch)).keys
        request = tenant_pb2.UpdateKeyRequest(tenant_id=key.tenant_id, key_id=key.id, policy=tenant_pb2.KeyPolicy())
        with acting_as(ADMIN):
            await room.tenants.UpdateKey(request)
        [told] = (await anext(watch)).keys
        assert (told.id, told.policy) == (key.id, tenant_pb2.KeyPolicy())


async def test_revocations_are_told_without_the_policies(room: Room, owner: Identity) -> None:
    key = await made(room, owner)
    watch = aiter(room.tenants.WatchRevocations(tenant_pb2.WatchRevocationsRequest()))
    assert key.id not in {each.key_id for each in (await anext(watch)).revocations}
    await rotated(room, key, overlap=Duration(seconds=60))
    [told] = (await anext(watch)).revocations
    assert told.key_id == key.id
    assert told.revoke_time.seconds > time.time() + 30


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"tenant": {"requests_per_minute": -1}}, "policy.rate_limits.tenant.requests_per_minute"),
        ({"each_key": {"tokens_per_day": 2**62}}, "policy.rate_limits.each_key.tokens_per_day"),
        ({"teams": {"Red Team": {"tokens_per_minute": 1}}}, "policy.rate_limits.teams"),
        ({"teams": {"red": {"concurrent_streams": -1}}}, "policy.rate_limits.teams.red.concurrent_streams"),
    ],
)
async def test_limits_that_cannot_be_kept_are_refused_by_name(
    room: Room, owner: Identity, limits: Any, field: str
) -> None:
    policy = tenant_pb2.Policy(rate_limits=tenant_pb2.TenantRateLimits(**limits))
    request = tenant_pb2.UpdateTenantRequest(tenant_id=owner.tenant_id, policy=policy)
    assert await field_of(room.tenants.UpdateTenant, request) == field


async def test_limits_are_kept_as_they_were_given(room: Room, owner: Identity) -> None:
    limits = tenant_pb2.TenantRateLimits(
        tenant=tenant_pb2.RateLimits(tokens_per_day=10**12),
        teams={"red": tenant_pb2.RateLimits(requests_per_minute=1)},
    )
    policy = tenant_pb2.Policy(rate_limits=limits)
    with acting_as(ADMIN):
        await room.tenants.UpdateTenant(tenant_pb2.UpdateTenantRequest(tenant_id=owner.tenant_id, policy=policy))
        kept = (await room.tenants.GetTenant(tenant_pb2.GetTenantRequest(tenant_id=owner.tenant_id))).tenant
    assert kept.policy.rate_limits == limits


async def test_only_the_version_that_was_read_is_rotated_and_revoked(room: Room, owner: Identity) -> None:
    key = await made(room, owner, display_name="ci")
    with acting_as(ADMIN):
        change = tenant_pb2.UpdateKeyRequest(tenant_id=key.tenant_id, key_id=key.id, display_name="cd")
        newer = (await room.tenants.UpdateKey(change)).key
    rotate = tenant_pb2.RotateKeyRequest(tenant_id=key.tenant_id, key_id=key.id, etag=key.etag)
    revoke = tenant_pb2.RevokeKeyRequest(tenant_id=key.tenant_id, key_id=key.id, etag=key.etag)
    assert await field_of(room.tenants.RotateKey, rotate) == "VERSION_CONFLICT"
    assert await field_of(room.tenants.RevokeKey, revoke) == "VERSION_CONFLICT"
    revoke.etag = newer.etag
    with acting_as(ADMIN):
        first = await room.tenants.RevokeKey(revoke)
        assert first.key.HasField("revoke_time")
        # A repeat does nothing, although it names a version that is gone.
        assert await room.tenants.RevokeKey(revoke) == first
