"""Teams of a tenant: made, found, renamed, and deleted with what belongs to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any
from uuid import uuid4

import grpc
import pytest

from llmmesh.billing.v1 import budgets_pb2
from llmmesh.tenant.v1 import teams_pb2, tenant_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import ADMIN, Room

_numbers = count()


@pytest.fixture
async def owner(room: Room) -> Identity:
    """A developer of a new tenant."""
    return await room.tenant(f"teamed-{next(_numbers)}")


async def team(room: Room, owner: Identity, team_id: str, **fields: Any) -> teams_pb2.Team:
    request = teams_pb2.CreateTeamRequest(tenant_id=owner.tenant_id, team_id=team_id, **fields)
    with acting_as(ADMIN):
        return (await room.teams.CreateTeam(request)).team


async def listed(room: Room, owner: Identity, caller: Identity = ADMIN, **fields: Any) -> list[str]:
    request = teams_pb2.ListTeamsRequest(tenant_id=owner.tenant_id, **fields)
    with acting_as(caller):
        return [each.id for each in (await room.teams.ListTeams(request)).teams]


async def key_of(room: Room, owner: Identity, team_id: str, **fields: Any) -> tenant_pb2.Key:
    request = tenant_pb2.CreateKeyRequest(tenant_id=owner.tenant_id, team_id=team_id, **fields)
    with acting_as(ADMIN):
        return (await room.tenants.CreateKey(request)).key


async def refused(call: Any) -> str | None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_info(caught.value)
    return info.metadata.get("field", error_reason(caught.value)) if info else None


async def test_a_team_is_made_once_renamed_by_version_and_listed_in_pages(room: Room, owner: Identity) -> None:
    request_id = str(uuid4())
    made = [await team(room, owner, "red", display_name="Red", request_id=request_id) for _ in range(2)]
    assert made[0] == made[1]
    assert await refused(team(room, owner, "red")) == "RESOURCE_EXISTS"
    assert await refused(team(room, owner, "blue", request_id=request_id)) == "REQUEST_CONFLICT"
    await team(room, owner, "blue")
    rename = teams_pb2.UpdateTeamRequest(
        tenant_id=owner.tenant_id, team_id="red", display_name="100%", etag=made[0].etag
    )
    with acting_as(ADMIN):
        assert (await room.teams.UpdateTeam(rename)).team.display_name == "100%"
        assert await refused(room.teams.UpdateTeam(rename)) == "VERSION_CONFLICT"
        page = await room.teams.ListTeams(teams_pb2.ListTeamsRequest(tenant_id=owner.tenant_id, page_size=1))
        assert [each.id for each in page.teams] == ["blue"]
    assert await listed(room, owner, page_size=1, page_token=page.next_page_token) == ["red"]
    other_filter = listed(room, owner, text="r", page_token=page.next_page_token)
    assert await refused(other_filter) == "page_token"
    assert [await listed(room, owner, text=text) for text in ("0%", "BLU", "_", "%%")] == [["red"], ["blue"], [], []]


async def test_a_key_makes_the_team_it_names(room: Room, owner: Identity) -> None:
    for _ in range(2):
        await key_of(room, owner, "research")
    assert await listed(room, owner) == ["research"]


async def test_a_team_in_use_is_deleted_by_force_alone_with_its_keys_and_budgets(room: Room, owner: Identity) -> None:
    theirs, others = await key_of(room, owner, "red"), await key_of(room, owner, "blue")
    budget = budgets_pb2.CreateBudgetRequest(
        tenant_id=owner.tenant_id, budget_id="red-month", team_id="red", limit_micros=5
    )
    request = teams_pb2.DeleteTeamRequest(tenant_id=owner.tenant_id, team_id="red")
    with acting_as(ADMIN):
        await room.budgets.CreateBudget(budget)
        assert await refused(room.teams.DeleteTeam(request)) == "RESOURCE_IN_USE"
        request.force = True
        await room.teams.DeleteTeam(request)
        assert await refused(room.teams.DeleteTeam(request)) == "RESOURCE_NOT_FOUND"
        keys = (await room.tenants.ListKeys(tenant_pb2.ListKeysRequest(tenant_id=owner.tenant_id))).keys
        budgets = await room.budgets.ListBudgets(budgets_pb2.ListBudgetsRequest(tenant_id=owner.tenant_id))
    assert {key.id: key.HasField("revoke_time") for key in keys} == {theirs.id: True, others.id: False}
    assert [each.id for each in budgets.budgets] == ["default"]
    assert await listed(room, owner) == ["blue"]


async def told_models(watch: AsyncIterator[tenant_pb2.WatchPoliciesResponse], key_id: str) -> list[str]:
    """The models that gateways are told next that a key may name."""
    async with asyncio.timeout(20):
        async for change in watch:
            for key in change.keys:
                if key.id == key_id:
                    return list(key.policy.allowed_models)
    raise AssertionError("the watch ended")


async def test_gateways_are_told_of_a_keys_models_within_those_of_its_team(room: Room, owner: Identity) -> None:
    made = await team(room, owner, "red", policy=teams_pb2.TeamPolicy(allowed_models=["a", "b"]))
    assert made.policy.allowed_models == ["a", "b"]
    change = teams_pb2.UpdateTeamRequest(tenant_id=owner.tenant_id, team_id="red")
    call = room.tenants.WatchPolicies(tenant_pb2.WatchPoliciesRequest())
    try:
        watch = aiter(call)
        await anext(watch)
        key = await key_of(room, owner, "red", policy=tenant_pb2.KeyPolicy(allowed_models=["b", "c"]))
        assert await told_models(watch, key.id) == ["b"]
        for models, left in ((["a"], [""]), (["c", "b"], ["b", "c"]), ([], ["b", "c"])):
            change.policy.CopyFrom(teams_pb2.TeamPolicy(allowed_models=models))
            with acting_as(ADMIN):
                await room.teams.UpdateTeam(change)
            assert await told_models(watch, key.id) == left
    finally:
        call.cancel()
    # Whoever administers the key sees its own policy, and a gateway that asks what holds.
    assert key.policy.allowed_models == ["b", "c"]
    change.policy.allowed_models.append("c")
    with acting_as(ADMIN):
        await room.teams.UpdateTeam(change)
        get = tenant_pb2.GetKeyRequest(tenant_id=owner.tenant_id, key_id=key.id)
        assert (await room.tenants.GetKey(get)).key.policy.allowed_models == ["b", "c"]
    with acting_as(Identity(owner.tenant_id, key.id, frozenset({"developer"}), "req")):
        found = await room.tenants.LookupKey(tenant_pb2.LookupKeyRequest(key_id=key.id))
    assert found.key.policy.allowed_models == ["c"]


async def test_a_teams_models_are_names(room: Room, owner: Identity) -> None:
    assert await refused(team(room, owner, "red", policy={"allowed_models": [""]})) == "policy.allowed_models"


async def test_other_tenants_teams_do_not_exist(room: Room, owner: Identity) -> None:
    stranger = await room.tenant(f"teamed-{next(_numbers)}")
    await team(room, owner, "red")
    auditor = Identity(stranger.tenant_id, "k", frozenset({"auditor"}), "r")
    get = teams_pb2.GetTeamRequest(tenant_id=owner.tenant_id, team_id="red")
    with acting_as(auditor):
        assert await refused(room.teams.GetTeam(get)) == "RESOURCE_NOT_FOUND"
        get.tenant_id = stranger.tenant_id
        assert await refused(room.teams.GetTeam(get)) == "RESOURCE_NOT_FOUND"
        get.team_id = "re%"
        assert await refused(room.teams.GetTeam(get)) == "team_id"
    assert await refused(listed(room, owner, auditor)) == "RESOURCE_NOT_FOUND"
    assert await refused(team(room, Identity("no-such-tenant"), "red")) == "RESOURCE_NOT_FOUND"
