"""Watchers of policies: everything first, then changes, never more than the whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meshkit.errors import DependencyUnavailable
from services.billing.tenants.policies import Policies, PolicyChange
from services.billing.tenants.tenant import Key, Policy, Tenant

NOW = datetime.now(UTC)
SOON = NOW + timedelta(days=1)


def tenant(name: str, display_name: str = "") -> Tenant:
    return Tenant(name, display_name, Policy(), NOW)


def key(name: str, **more: Any) -> Key:
    return Key(name, "a", "", ("developer",), **{"create_time": NOW, "expire_time": SOON, **more})


def revoked(name: str, **more: Any) -> Key:
    return key(name, revoke_time=NOW, **more)


@pytest.fixture
def policies() -> Policies:
    made = Policies()
    made.reset([tenant("a"), tenant("b")], [revoked("k1")])
    return made


def open_watch(policies: Policies) -> aclosing[AsyncGenerator[PolicyChange, None]]:
    return aclosing(policies.watch())


async def test_the_first_message_holds_everything(policies: Policies) -> None:
    async with open_watch(policies) as watch:
        assert await anext(watch) == PolicyChange([tenant("a"), tenant("b")], [revoked("k1")])


async def test_a_change_is_told_alone(policies: Policies) -> None:
    async with open_watch(policies) as watch:
        await anext(watch)
        policies.put_tenant(tenant("a", "new"))
        assert await anext(watch) == PolicyChange([tenant("a", "new")], [])
        policies.put_key(revoked("k2"))
        assert await anext(watch) == PolicyChange([], [revoked("k2")])


async def test_a_slow_watcher_gets_the_latest_of_each_at_once(policies: Policies) -> None:
    async with open_watch(policies) as watch:
        await anext(watch)
        for number in range(1000):
            policies.put_tenant(tenant("a", str(number)))
        policies.put_key(revoked("k2"))
        assert await anext(watch) == PolicyChange([tenant("a", "999")], [revoked("k2")])


async def test_a_later_watcher_starts_from_the_changed_whole(policies: Policies) -> None:
    policies.put_tenant(tenant("c"))
    policies.put_key(revoked("k2"))
    async with open_watch(policies) as watch:
        first = await anext(watch)
    assert [each.id for each in first.tenants] == ["a", "b", "c"]
    assert [each.id for each in first.keys] == ["k1", "k2"]


async def test_revoked_keys_that_have_expired_are_forgotten(policies: Policies) -> None:
    policies.put_key(revoked("old", expire_time=NOW - timedelta(days=1)))
    async with open_watch(policies) as watch:
        assert (await anext(watch)).keys == [revoked("k1")]


async def test_a_key_that_its_token_says_everything_about_is_told_to_nobody(policies: Policies) -> None:
    async with open_watch(policies) as watch:
        await anext(watch)
        policies.put_key(key("plain"))
        policies.put_key(key("of-a-team", team_id="research"))
        policies.put_key(key("limited", policy={"rate_limits": {"requests_per_minute": "3"}}))
        assert [each.id for each in (await anext(watch)).keys] == ["of-a-team", "limited"]
        policies.put_key(key("limited"))
        assert (await anext(watch)).keys == [key("limited")], "a restriction that was taken back is news"


async def test_a_key_is_revoked_from_the_time_its_rotation_set(policies: Policies) -> None:
    policies.put_key(key("retiring", revoke_time=SOON - timedelta(hours=1)))
    assert not policies.revoked("retiring")
    assert policies.revoked("k1")
    assert not policies.revoked("unheard-of")


async def test_a_reset_tells_watchers_everything_again(policies: Policies) -> None:
    async with open_watch(policies) as watch:
        await anext(watch)
        policies.reset([tenant("a", "missed")], [revoked("k9")])
        change = await anext(watch)
    assert (change.tenants[0], change.keys) == (tenant("a", "missed"), [revoked("k9")])
    # Whoever is there no longer was deleted meanwhile.
    assert [(each.id, each.delete_time is None) for each in change.tenants] == [("a", True), ("b", False)]


async def test_who_was_deleted_lately_is_told_to_everyone_who_begins_to_watch(policies: Policies) -> None:
    gone = replace(tenant("b"), delete_time=NOW)
    policies.put_tenant(gone)
    async with open_watch(policies) as watch:
        assert (await anext(watch)).tenants == [tenant("a"), gone]
        policies.reset([tenant("a"), gone], [])
        assert (await anext(watch)).tenants == [tenant("a"), gone]
        policies.put_tenant(tenant("b"))
        assert (await anext(watch)).tenants == [tenant("b")]
    assert policies.of("b") == Policy()


async def test_losing_the_database_ends_watches_and_refuses_new_ones(policies: Policies) -> None:
    async with open_watch(policies) as watch:
        await anext(watch)
        policies.lose()
        with pytest.raises(DependencyUnavailable):
            await anext(watch)
    async with open_watch(policies) as watch:
        with pytest.raises(DependencyUnavailable):
            await anext(watch)


async def test_nobody_watches_before_the_database_was_read() -> None:
    async with open_watch(Policies()) as watch:
        with pytest.raises(DependencyUnavailable):
            await anext(watch)


@pytest.mark.parametrize(
    ("own", "team", "left"),
    [
        ((), (), ()),
        (("a",), (), ("a",)),
        ((), ("a", "b"), ("a", "b")),
        (("b", "c"), ("a", "b"), ("b",)),
        # None is left: the empty name is no model's, whereas an empty list would mean all.
        (("c",), ("a",), ("",)),
    ],
)
def test_a_team_narrows_the_models_of_its_keys(
    own: tuple[str, ...], team: tuple[str, ...], left: tuple[str, ...]
) -> None:
    limits = {"rate_limits": {"requests_per_minute": "5"}}
    made = key("k", policy={"allowed_models": list(own), **limits}, team_models=team).within_team()
    assert tuple(made.policy["allowed_models"]) == left
    assert made.policy["rate_limits"] == limits["rate_limits"]
