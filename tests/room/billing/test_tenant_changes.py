"""Changes of tenants and keys: of the version that was read, once however often they are sent; and deletion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any
from uuid import uuid4

import grpc
import pytest

from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import ADMIN, TOKENS_PER_RUBLE, Room

_numbers = count()


@pytest.fixture
async def owner(room: Room) -> Identity:
    """A developer of a new tenant."""
    return await room.tenant(f"changing-{next(_numbers)}")


async def key_of(room: Room, tenant_id: str, **fields: Any) -> tenant_pb2.CreateKeyResponse:
    with acting_as(ADMIN):
        return await room.tenants.CreateKey(tenant_pb2.CreateKeyRequest(tenant_id=tenant_id, **fields))


async def keys_of(room: Room, tenant_id: str, **fields: Any) -> list[tenant_pb2.Key]:
    with acting_as(ADMIN):
        return list((await room.tenants.ListKeys(tenant_pb2.ListKeysRequest(tenant_id=tenant_id, **fields))).keys)


async def delete(room: Room, tenant_id: str, **fields: Any) -> tenant_pb2.Tenant:
    with acting_as(ADMIN):
        request = tenant_pb2.DeleteTenantRequest(tenant_id=tenant_id, **fields)
        return (await room.tenants.DeleteTenant(request)).tenant


async def update(room: Room, tenant_id: str, **fields: Any) -> tenant_pb2.Tenant:
    with acting_as(ADMIN):
        request = tenant_pb2.UpdateTenantRequest(tenant_id=tenant_id, **fields)
        return (await room.tenants.UpdateTenant(request)).tenant


async def listed(room: Room, **fields: Any) -> set[str]:
    with acting_as(ADMIN):
        tenants = await room.tenants.ListTenants(tenant_pb2.ListTenantsRequest(page_size=1000, **fields))
    return {tenant.id for tenant in tenants.tenants}


async def refused(call: Any) -> str | None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_info(caught.value)
    return info.metadata.get("field", error_reason(caught.value)) if info else None


async def test_a_change_of_a_version_that_is_no_more_is_refused(room: Room, owner: Identity) -> None:
    read = await update(room, owner.tenant_id)
    changed = await update(room, owner.tenant_id, display_name="first", etag=read.etag)
    assert changed.etag != read.etag
    assert await refused(update(room, owner.tenant_id, display_name="second", etag=read.etag)) == "VERSION_CONFLICT"
    assert await refused(update(room, owner.tenant_id, etag=read.etag)) == "VERSION_CONFLICT"
    assert await refused(delete(room, owner.tenant_id, etag=read.etag)) == "VERSION_CONFLICT"
    assert (await update(room, owner.tenant_id)).display_name == "first"
    assert await refused(update(room, owner.tenant_id, etag="first")) == "etag"


async def test_of_many_changes_of_one_version_a_single_one_is_made(room: Room, owner: Identity) -> None:
    etag = (await update(room, owner.tenant_id)).etag
    changes = [update(room, owner.tenant_id, display_name=f"n{n}", etag=etag) for n in range(8)]
    answers = await asyncio.gather(*changes, return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, tenant_pb2.Tenant)]
    assert len(made) == 1
    assert made == [await update(room, owner.tenant_id)]


async def test_a_key_has_versions_too(room: Room, owner: Identity) -> None:
    key = (await key_of(room, owner.tenant_id)).key
    request = tenant_pb2.UpdateKeyRequest(tenant_id=owner.tenant_id, key_id=key.id, display_name="one", etag=key.etag)
    with acting_as(ADMIN):
        changed = (await room.tenants.UpdateKey(request)).key
        assert await refused(room.tenants.UpdateKey(request)) == "VERSION_CONFLICT"
    assert (changed.display_name, int(changed.etag)) == ("one", int(key.etag) + 1)


async def test_a_key_that_is_asked_for_twice_is_one_key_with_one_token(room: Room, owner: Identity) -> None:
    request_id = str(uuid4())
    asked = [key_of(room, owner.tenant_id, display_name="ci", request_id=request_id) for _ in range(8)]
    answers = await asyncio.gather(*asked)
    assert len({answer.token for answer in answers}) == 1
    assert [key.id for key in await keys_of(room, owner.tenant_id)] == [answers[0].key.id]
    other = key_of(room, owner.tenant_id, display_name="another", request_id=request_id)
    assert await refused(other) == "REQUEST_CONFLICT"
    assert await refused(update(room, owner.tenant_id, request_id=request_id)) == "REQUEST_CONFLICT"
    assert await refused(key_of(room, owner.tenant_id, request_id="twice")) == "request_id"


async def test_a_rotation_that_is_sent_twice_makes_one_successor(room: Room, owner: Identity) -> None:
    key = (await key_of(room, owner.tenant_id)).key
    request = tenant_pb2.RotateKeyRequest(tenant_id=owner.tenant_id, key_id=key.id, request_id=str(uuid4()))
    with acting_as(ADMIN):
        first, again = [await room.tenants.RotateKey(request) for _ in range(2)]
        assert first == again
        assert len(await keys_of(room, owner.tenant_id)) == 2
        request.request_id = str(uuid4())
        assert await refused(room.tenants.RotateKey(request)) == "key_id"


async def test_of_rotations_at_once_a_single_one_is_made(room: Room, owner: Identity) -> None:
    key = (await key_of(room, owner.tenant_id)).key
    request = tenant_pb2.RotateKeyRequest(tenant_id=owner.tenant_id, key_id=key.id)
    with acting_as(ADMIN):
        rotations = [room.tenants.RotateKey(request) for _ in range(6)]
        answers = await asyncio.gather(*rotations, return_exceptions=True)
    assert sum(isinstance(answer, tenant_pb2.RotateKeyResponse) for answer in answers) == 1
    assert len(await keys_of(room, owner.tenant_id)) == 2


async def test_a_tenant_that_is_made_or_changed_twice_is_so_once(room: Room, owner: Identity) -> None:
    request = tenant_pb2.CreateTenantRequest(tenant_id=f"{owner.tenant_id}-new", request_id=str(uuid4()))
    with acting_as(ADMIN):
        first, again = [await room.tenants.CreateTenant(request) for _ in range(2)]
        assert first == again
        request.request_id = str(uuid4())
        assert await refused(room.tenants.CreateTenant(request)) == "RESOURCE_EXISTS"
        # What failed was not done: the id is free for another try.
        request.tenant_id += "er"
        assert (await room.tenants.CreateTenant(request)).tenant.id == request.tenant_id
    rename = {"display_name": "new", "etag": first.tenant.etag, "request_id": str(uuid4())}
    renamed = [await update(room, first.tenant.id, **rename) for _ in range(2)]
    assert renamed[0] == renamed[1]


async def test_a_tenant_in_use_is_deleted_by_force_alone_and_its_books_stay(room: Room, owner: Identity) -> None:
    made = await key_of(room, owner.tenant_id)
    caller = Identity(owner.tenant_id, made.key.id, frozenset({"developer"}), "req")
    running = await room.reserve(caller, "r1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await delete(room, owner.tenant_id)
    assert (caught.value.code(), error_reason(caught.value)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "RESOURCE_IN_USE",
    )
    assert "1 keys" in str(caught.value.details())
    assert not (await keys_of(room, owner.tenant_id))[0].HasField("revoke_time")
    gone = await delete(room, owner.tenant_id, force=True)
    assert gone.HasField("delete_time")
    assert (await keys_of(room, owner.tenant_id))[0].HasField("revoke_time")
    # The answer that was under way is billed all the same.
    await room.commit(caller, running, input_tokens=TOKENS_PER_RUBLE)
    assert [row.request_id for row in await room.usage(caller)] == ["r1"]
    assert (await room.budget(caller)).spent_micros == 1_000_000


async def test_a_deleted_tenant_takes_no_changes_until_it_is_undeleted(room: Room, owner: Identity) -> None:
    name = owner.tenant_id
    request_id = str(uuid4())
    gone = await delete(room, name, request_id=request_id)
    assert await delete(room, name, request_id=request_id) == gone
    assert await refused(delete(room, name)) == "RESOURCE_NOT_FOUND"
    assert await refused(update(room, name, display_name="x")) == "RESOURCE_NOT_FOUND"
    assert await refused(key_of(room, name)) == "RESOURCE_NOT_FOUND"
    assert name not in await listed(room)
    assert name in await listed(room, show_deleted=True)
    undelete = tenant_pb2.UndeleteTenantRequest(tenant_id=name, etag=gone.etag)
    with acting_as(ADMIN):
        assert await refused(room.tenants.CreateTenant(tenant_pb2.CreateTenantRequest(tenant_id=name)))
        assert not (await room.tenants.UndeleteTenant(undelete)).tenant.HasField("delete_time")
        assert await refused(room.tenants.UndeleteTenant(undelete)) == "VERSION_CONFLICT"
        undelete.etag = ""
        assert await refused(room.tenants.UndeleteTenant(undelete)) == "RESOURCE_EXISTS"
    assert (await key_of(room, name)).token


async def test_watchers_hear_of_a_deletion_and_of_all_its_keys_at_once(room: Room, owner: Identity) -> None:
    made = {(await key_of(room, owner.tenant_id)).key.id for _ in range(3)}
    call = room.tenants.WatchPolicies(tenant_pb2.WatchPoliciesRequest())
    watch: AsyncIterator[tenant_pb2.WatchPoliciesResponse] = aiter(call)
    await anext(watch)
    await delete(room, owner.tenant_id, force=True)
    revoked: set[str] = set()
    deleted: set[str] = set()
    async with asyncio.timeout(20):
        while not (deleted and made <= revoked):
            change = await anext(watch)
            revoked |= set(change.revoked_key_ids)
            deleted |= {tenant.id for tenant in change.tenants if tenant.HasField("delete_time")}
    call.cancel()
    assert deleted == {owner.tenant_id}


async def test_tenants_are_found_by_text_and_tag_and_text_has_no_wildcards(room: Room, owner: Identity) -> None:
    name = owner.tenant_id
    await update(room, name, display_name="100% Акме_Co", policy=tenant_pb2.Policy(tags=["pilot%"]))
    assert name in await listed(room, text=name[3:].upper())
    for text in ("акме_", "100%", "_CO"):
        assert await listed(room, text=text) == {name}, text
    assert await listed(room, tag="pilot%") == {name}
    for nobody in ({"text": "100_"}, {"text": "%Ак"}, {"tag": "pilot_"}, {"tag": "%"}, {"text": "' or ''='"}):
        assert await listed(room, **nobody) == set(), nobody


async def test_keys_are_found_by_team_user_tag_and_whether_they_are_good(room: Room, owner: Identity) -> None:
    red = (await key_of(room, owner.tenant_id, team_id="red", user_id="ada", tags=["ci"])).key
    blue = (await key_of(room, owner.tenant_id, team_id="blue")).key
    with acting_as(ADMIN):
        await room.tenants.RevokeKey(tenant_pb2.RevokeKeyRequest(tenant_id=owner.tenant_id, key_id=blue.id))
    for which in ({"team_id": "red"}, {"user_id": "ada"}, {"tag": "ci"}, {"live": True}):
        assert [key.id for key in await keys_of(room, owner.tenant_id, **which)] == [red.id], which
    for nobody in ({"team_id": "re_"}, {"user_id": "%"}, {"tag": "c%"}, {"team_id": "blue", "live": True}):
        assert await keys_of(room, owner.tenant_id, **nobody) == [], nobody


async def test_a_page_token_is_good_for_its_own_filter_alone(room: Room, owner: Identity) -> None:
    for _ in range(3):
        await key_of(room, owner.tenant_id, team_id="red")
    request = tenant_pb2.ListKeysRequest(tenant_id=owner.tenant_id, page_size=1, team_id="red")
    with acting_as(ADMIN):
        request.page_token = (await room.tenants.ListKeys(request)).next_page_token
        assert len((await room.tenants.ListKeys(request)).keys) == 1
        request.team_id = "blue"
        assert await refused(room.tenants.ListKeys(request)) == "page_token"
