"""Who is let in and what they may use: policies, the catalogue, the guard's policy in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import (
    BillingUnavailable,
    CredentialInvalid,
    DependencyUnavailable,
    FieldInvalid,
    ModelNotAllowed,
    ModelNotFound,
)
from meshkit.identity import BOUND_KEY, Identity
from services.gateway.catalogue import Catalogue
from services.gateway.guard_policy import GuardPolicy
from services.gateway.policies import PolicyTable, TenantPolicy, follow_policies

ADA = Identity("acme", "key-1")


async def unheard_of(caller: Identity) -> None:
    return None


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def policies(*tenants: str, revoked: tuple[str, ...] = (), **policy: Any) -> tenant_pb2.WatchPoliciesResponse:
    rows = [tenant_pb2.Tenant(id=name, policy=tenant_pb2.Policy(**policy)) for name in tenants]
    revocations = [tenant_pb2.Revocation(key_id=key_id, revoke_time=Timestamp(seconds=1)) for key_id in revoked]
    return tenant_pb2.WatchPoliciesResponse(tenants=rows, revocations=revocations)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> PolicyTable:
    table = PolicyTable(unheard_of, 300, 0, clock)
    table.take(policies("acme"), everything=True)
    return table


async def test_before_the_first_snapshot_nobody_is_judged() -> None:
    table = PolicyTable(unheard_of, 300, 0)
    assert not table.usable
    with pytest.raises(BillingUnavailable):
        await table.admit(ADA)


async def test_a_known_tenant_is_admitted_with_its_policy(table: PolicyTable) -> None:
    table.take(policies("acme", guard_fail_open=True, allowed_models=["m"]), everything=False)
    policy = await table.admit(ADA)
    assert (policy.guard_fail_open, policy.allowed_models) == (True, frozenset({"m"}))


async def test_a_revoked_key_is_invalid(table: PolicyTable) -> None:
    table.take(policies(revoked=("key-1",)), everything=False)
    with pytest.raises(CredentialInvalid):
        await table.admit(ADA)


async def test_a_deleted_tenant_is_let_in_with_none_of_its_keys(table: PolicyTable) -> None:
    key = tenant_pb2.Key(id=ADA.key_id, tenant_id="acme", team_id="red")
    table.take(tenant_pb2.WatchPoliciesResponse(keys=[key]), everything=False)
    await table.admit(ADA)
    gone = tenant_pb2.Tenant(id="acme", delete_time=Timestamp(seconds=1))
    table.take(tenant_pb2.WatchPoliciesResponse(tenants=[gone]), everything=False)
    for caller in (ADA, Identity("acme", "corp:ada")):
        with pytest.raises(CredentialInvalid, match="no tenant"):
            await table.admit(caller)


async def test_a_new_key_is_asked_for_once_by_all_who_show_it_and_never_again(clock: Clock) -> None:
    asked: list[Identity] = []

    async def ask(caller: Identity) -> tenant_pb2.Key:
        asked.append(caller)
        await asyncio.sleep(0)
        own = tenant_pb2.KeyPolicy(allowed_models=["small"])
        return tenant_pb2.Key(id=caller.key_id, tenant_id=caller.tenant_id, policy=own)

    table = PolicyTable(ask, 300, 0, clock)
    table.take(policies("acme"), everything=True)
    bound = Identity("acme", f"{BOUND_KEY}1")
    admitted = await asyncio.gather(*(table.admit(bound) for _ in range(100)))
    admitted.append(await table.admit(bound))
    assert {policy.allowed_models for policy in admitted} == {frozenset({"small"})}
    assert asked == [bound]
    assert (await table.admit(ADA)).allowed_models == frozenset()
    assert asked == [bound]


async def test_a_new_key_that_billing_does_not_know_or_has_revoked_is_invalid() -> None:
    async def ask(caller: Identity) -> tenant_pb2.Key:
        return tenant_pb2.Key(id=caller.key_id, tenant_id="acme", revoke_time=Timestamp(seconds=1))

    for asking in (ask, unheard_of):
        table = PolicyTable(asking, 300, 0)
        table.take(policies("acme"), everything=True)
        with pytest.raises(CredentialInvalid):
            await table.admit(Identity("acme", f"{BOUND_KEY}1"))


async def test_a_new_key_that_cannot_be_asked_for_is_our_fault_and_asked_for_again() -> None:
    async def away(caller: Identity) -> None:
        raise BillingUnavailable("Away.")

    async def late(caller: Identity) -> tenant_pb2.Key:
        pushed = tenant_pb2.Key(id=caller.key_id, tenant_id="acme", policy=tenant_pb2.KeyPolicy(allowed_models=["new"]))
        table.take(tenant_pb2.WatchPoliciesResponse(keys=[pushed]), everything=False)
        return tenant_pb2.Key(id=caller.key_id, tenant_id="acme", policy=tenant_pb2.KeyPolicy(allowed_models=["old"]))

    bound = Identity("acme", f"{BOUND_KEY}1")
    table = PolicyTable(away, 300, 0)
    table.take(policies("acme"), everything=True)
    for _ in range(2):
        with pytest.raises(BillingUnavailable):
            await table.admit(bound)
    table = PolicyTable(late, 300, 0)
    table.take(policies("acme"), everything=True)
    assert (await table.admit(bound)).allowed_models == frozenset({"new"})


async def test_a_tenant_nobody_knows_is_invalid(table: PolicyTable) -> None:
    with pytest.raises(CredentialInvalid):
        await table.admit(Identity("stranger", "key-9"))


async def test_a_tenant_made_a_moment_ago_is_waited_for() -> None:
    table = PolicyTable(unheard_of, 300, 5)
    table.take(policies("acme"), everything=True)
    loop = asyncio.get_running_loop()
    for message in (policies("other"), policies("new", guard_fail_open=True)):
        loop.call_soon(partial(table.take, message, everything=False))
    assert (await table.admit(Identity("new", "key-2"))).guard_fail_open


async def test_a_broken_stream_is_survived_for_a_while_and_then_we_are_at_fault_not_the_key(
    table: PolicyTable, clock: Clock
) -> None:
    table.broken()
    clock.now += 299
    table.broken()
    assert await table.admit(ADA)
    clock.now += 2
    with pytest.raises(BillingUnavailable):
        await table.admit(ADA)
    assert not table.usable


async def test_a_new_snapshot_replaces_everything(table: PolicyTable, clock: Clock) -> None:
    table.take(policies(revoked=("key-1",)), everything=False)
    table.broken()
    clock.now += 1000
    table.take(policies("acme"), everything=True)
    assert await table.admit(ADA)


@pytest.mark.parametrize(
    ("cache", "exact", "semantic"),
    [
        (tenant_pb2.CACHE_POLICY_UNSPECIFIED, True, True),
        (tenant_pb2.CACHE_POLICY_SEMANTIC, True, True),
        (tenant_pb2.CACHE_POLICY_EXACT, True, False),
        (tenant_pb2.CACHE_POLICY_OFF, False, False),
    ],
)
def test_a_cache_policy_names_its_levels(cache: Any, exact: bool, semantic: bool) -> None:
    policy = TenantPolicy.from_message(tenant_pb2.Policy(cache=cache))
    assert (policy.cache_exact, policy.cache_semantic) == (exact, semantic)


async def test_a_stream_that_ends_is_opened_again_and_begins_with_everything() -> None:
    table = PolicyTable(unheard_of, 300, 0)
    again = asyncio.Event()
    streams = 0

    async def changes() -> AsyncIterator[tenant_pb2.WatchPoliciesResponse]:
        nonlocal streams
        streams += 1
        if streams == 1:
            yield policies("acme", "gone")
            yield policies("late")
            return
        if streams == 2:
            raise BillingUnavailable("away")
        yield policies("acme")
        again.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(follow_policies(table, changes))
    await asyncio.wait_for(again.wait(), 5)
    task.cancel()
    await asyncio.wait([task])
    assert await table.admit(ADA)
    for name in ("gone", "late"):
        with pytest.raises(CredentialInvalid):
            await table.admit(Identity(name, "k"))


def catalogue() -> Catalogue:
    known = Catalogue()
    known.replace(
        [
            router_pb2.Model(
                name="chat",
                deployments=[
                    router_pb2.Deployment(name="local/chat", provider="local", context_tokens=2048),
                    router_pb2.Deployment(name="cloud/chat", provider="cloud", context_tokens=8192),
                    router_pb2.Deployment(name="cloud/chat-2", provider="cloud", context_tokens=4096),
                ],
            ),
            router_pb2.Model(
                name="e5", deployments=[router_pb2.Deployment(name="local/e5", provider="local", embeds=True)]
            ),
        ]
    )
    return known


def policy(models: tuple[str, ...] = (), deployments: tuple[str, ...] = ()) -> TenantPolicy:
    return TenantPolicy(frozenset(models), frozenset(deployments), chat_pb2.DATA_RESIDENCY_GLOBAL)


def test_an_offer_holds_what_the_tenant_may_use() -> None:
    offer = catalogue().chat_offer("chat", policy())
    assert offer.deployments == ("local/chat", "cloud/chat", "cloud/chat-2")
    assert (offer.providers, offer.context_tokens) == (("local", "cloud"), 8192)
    narrow = catalogue().chat_offer("chat", policy(deployments=("local/chat", "local/e5")))
    assert (narrow.deployments, narrow.context_tokens) == (("local/chat",), 2048)


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(ModelNotFound):
        catalogue().chat_offer("gpt-17", policy())


@pytest.mark.parametrize("limits", [policy(models=("e5",)), policy(deployments=("local/e5",))])
def test_a_model_outside_the_policy_is_not_allowed(limits: TenantPolicy) -> None:
    with pytest.raises(ModelNotAllowed):
        catalogue().chat_offer("chat", limits)


def test_a_model_that_does_something_else_is_refused_as_a_wrong_field() -> None:
    with pytest.raises(FieldInvalid):
        catalogue().chat_offer("e5", policy())
    with pytest.raises(FieldInvalid):
        catalogue().embedding_offer("chat", policy())


def test_the_list_holds_only_what_the_tenant_may_use() -> None:
    assert [offer.model for offer in catalogue().offers(policy())] == ["chat", "e5"]
    assert [offer.model for offer in catalogue().offers(policy(models=("e5",)))] == ["e5"]
    with pytest.raises(ModelNotFound):
        catalogue().visible_offer("chat", policy(models=("e5",)))


def test_before_the_router_was_heard_models_are_not_missing_but_unknown() -> None:
    with pytest.raises(DependencyUnavailable):
        Catalogue().chat_offer("chat", policy())


def test_the_guards_policy_is_forgotten_when_the_guard_is_silent_too_long(clock: Clock) -> None:
    known = GuardPolicy(60, clock)
    assert known.version() == ""
    known.learn("v1")
    clock.now += 60
    assert known.version() == "v1"
    clock.now += 1
    assert known.version() == ""
    known.learn("v2")
    known.learn("")
    assert known.version() == "v2"
