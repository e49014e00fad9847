"""Policies and revocations, pushed to whoever watches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from llmmesh.tenant.v1 import tenant_pb2
from meshkit.identity import acting_as
from tests.room.billing.conftest import Configure
from tests.support.billing_room import ADMIN, Room, billing_room

_numbers = count()


@pytest.fixture
def name() -> str:
    """An id no other test uses."""
    return f"tenant-{next(_numbers)}"


@asynccontextmanager
async def watching(room: Room) -> AsyncIterator[AsyncIterator[tenant_pb2.WatchPoliciesResponse]]:
    """A watch, ended with the block."""
    call = room.tenants.WatchPolicies(tenant_pb2.WatchPoliciesRequest())
    try:
        yield aiter(call)
    finally:
        call.cancel()


async def told(watch: AsyncIterator[tenant_pb2.WatchPoliciesResponse], tenant_id: str) -> tenant_pb2.Tenant:
    """What a watcher is told next about a tenant."""
    async with asyncio.timeout(20):
        async for change in watch:
            for tenant in change.tenants:
                if tenant.id == tenant_id:
                    return tenant
    raise AssertionError("the watch ended")


async def test_a_watcher_is_told_everything_then_each_change(room: Room, name: str) -> None:
    await room.tenant(name)
    with acting_as(ADMIN):
        old_key = (await room.tenants.CreateKey(tenant_pb2.CreateKeyRequest(tenant_id=name))).key
        key = (await room.tenants.CreateKey(tenant_pb2.CreateKeyRequest(tenant_id=name))).key
        await room.tenants.RevokeKey(tenant_pb2.RevokeKeyRequest(tenant_id=name, key_id=old_key.id))
    # A new room knows what there is only from the database.
    async with billing_room(room.config) as replica, watching(replica) as watch:
        everything = await anext(watch)
        assert name in {tenant.id for tenant in everything.tenants}
        assert old_key.id in everything.revoked_key_ids
        with acting_as(ADMIN):
            await room.tenants.UpdateTenant(
                tenant_pb2.UpdateTenantRequest(tenant_id=name, policy=tenant_pb2.Policy(allowed_models=["only"]))
            )
        assert (await told(watch, name)).policy.allowed_models == ["only"]
        with acting_as(ADMIN):
            await room.tenants.RevokeKey(tenant_pb2.RevokeKeyRequest(tenant_id=name, key_id=key.id))
        async with asyncio.timeout(20):
            assert (await anext(watch)).revoked_key_ids == [key.id]


async def test_many_watchers_hear_of_a_new_tenant(room: Room, name: str) -> None:
    async with asyncio.TaskGroup() as group:
        heard = []
        started = []

        async def listen() -> tenant_pb2.Tenant:
            async with watching(room) as watch:
                await anext(watch)
                started.append(1)
                if len(started) == 50:
                    everyone.set()
                return await told(watch, name)

        everyone = asyncio.Event()
        heard = [group.create_task(listen()) for _ in range(50)]
        await everyone.wait()
        await room.tenant(name)
    assert {task.result().id for task in heard} == {name}


async def test_draining_ends_watches_at_once(configure: Configure, fresh_books: str) -> None:
    async with billing_room(configure(fresh_books, drain_seconds=30)) as room:
        watch = room.tenants.WatchPolicies(tenant_pb2.WatchPoliciesRequest())
        await anext(aiter(watch))
        started = time.monotonic()
    assert time.monotonic() - started < 15
