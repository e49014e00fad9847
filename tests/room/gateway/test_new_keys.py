"""A new key's own policy holds from its first request on, whether or not the push has come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from llmmesh.tenant.v1 import tenant_pb2
from meshkit.identity import BOUND_KEY, Identity, acting_as
from tests.support.billing_room import ADMIN
from tests.support.gateway_room import Front, Tenant

FORBIDDEN = (grpc.StatusCode.PERMISSION_DENIED, "MODEL_NOT_ALLOWED")
OTHER_MODEL = tenant_pb2.KeyPolicy(allowed_models=["another"])


@contextmanager
def unannounced(front: Front) -> Iterator[None]:
    """New keys and changes of keys are announced to nobody for the block."""
    with front.billing.database() as database:
        database.execute("ALTER TABLE keys DISABLE TRIGGER USER")
        try:
            yield
        finally:
            database.execute("ALTER TABLE keys ENABLE TRIGGER USER")


async def key_of(tenant: Tenant, **more: Any) -> Tenant:
    request = tenant_pb2.CreateKeyRequest(tenant_id=tenant.identity.tenant_id, **more)
    with acting_as(ADMIN):
        key = (await tenant.front.billing.tenants.CreateKey(request)).key
    return Tenant(tenant.front, Identity(key.tenant_id, key.id, frozenset({"developer"})), tenant.request_ids)


async def test_a_key_is_narrowed_before_anything_was_pushed(tenant: Tenant) -> None:
    with unannounced(tenant.front):
        narrow = await key_of(tenant, policy=OTHER_MODEL)
        refusals = await asyncio.gather(*(narrow.failure(f"Question {n}.") for n in range(10)))
        assert refusals == [FORBIDDEN] * 10
        limits = tenant_pb2.RateLimits(requests_per_minute=1)
        slow = await key_of(tenant, policy=tenant_pb2.KeyPolicy(rate_limits=limits))
        assert (await slow.chat("The first.", stream=True)).text
        assert await slow.failure("The second.") == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")


async def test_a_key_without_a_policy_is_asked_about_by_nobody(tenant: Tenant) -> None:
    free = await key_of(tenant)
    assert not free.identity.key_id.startswith(BOUND_KEY)
    # Whoever asked about it would hear that there is no such key.
    with tenant.front.billing.database() as database:
        database.execute("DELETE FROM keys WHERE id = %s", [free.identity.key_id])
    assert (await free.chat("Am I free?", stream=True)).text


@pytest.mark.parametrize("key_id", ["unheard-of", "%"])
async def test_a_key_that_is_in_no_book_is_none(tenant: Tenant, key_id: str) -> None:
    stranger = Tenant(
        tenant.front, Identity(tenant.identity.tenant_id, f"{BOUND_KEY}{key_id}", frozenset({"developer"}))
    )
    assert await stranger.failure("Who am I?") == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


async def test_another_tenants_key_is_none_of_ours(tenant: Tenant, front: Front) -> None:
    with unannounced(front):
        theirs = await key_of(await front.tenant(), policy=OTHER_MODEL)
        mixed = Tenant(front, Identity(tenant.identity.tenant_id, theirs.identity.key_id, frozenset({"developer"})))
        assert await mixed.failure("Whose am I?") == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


async def test_a_successor_is_narrowed_like_the_key_it_follows(tenant: Tenant) -> None:
    with unannounced(tenant.front):
        narrow = await key_of(tenant, policy=OTHER_MODEL)
        request = tenant_pb2.RotateKeyRequest(tenant_id=tenant.identity.tenant_id, key_id=narrow.identity.key_id)
        with acting_as(ADMIN):
            key = (await tenant.front.billing.tenants.RotateKey(request)).key
        successor = Tenant(tenant.front, Identity(key.tenant_id, key.id, frozenset({"developer"})))
        assert await successor.failure("Question.") == FORBIDDEN
