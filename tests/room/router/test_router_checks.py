"""Deployments that nobody calls are asked how they are."""

from __future__ import annotations

import pytest

from llmmesh.inference.v1 import inference_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.identity import Identity, acting_as
from tests.support.router_room import RouterRoom, cloud, ours
from tests.support.scripted_provider import ScriptedProvider
from tests.support.waiting import until

OFTEN = {"health_check_seconds": 0.03, "breaker_open_seconds": 60}


def healthy_ones(cheap: ScriptedProvider, dear: ScriptedProvider) -> list[dict[str, object]]:
    """Two clouds that can be asked."""
    return [cloud(name, each, health_path="/models") for name, each in (("cheap", cheap), ("dear", dear))]


def asked(provider: ScriptedProvider) -> int:
    """How often it was asked how it is."""
    return sum(received.path == "/v1/models" for received in provider.requests)


async def breaker_is(room: RouterRoom, wanted: router_pb2.BreakerState.ValueType, name: str = "cheap") -> bool:
    with acting_as(Identity(key_id="k", roles=frozenset({"admin"}))):
        answer = await room.stub.ListProviders(router_pb2.ListProvidersRequest())
    return any((each.deployment.name, each.breaker) == (name, wanted) for each in answer.providers)


async def test_the_next_caller_need_not_find_out_that_an_idle_deployment_is_away(make_room):
    async with make_room(healthy_ones, **OFTEN) as room:
        room.cheap.set(fail_next=-1, fail_status=503)
        await until(lambda: breaker_is(room, router_pb2.BREAKER_STATE_OPEN))
        told = await room.answer()
        assert (told.route.deployment, list(told.route.failed_attempts)) == ("dear", [])


async def test_no_caller_has_to_try_while_checks_fail(make_room):
    async with make_room(healthy_ones, **{**OFTEN, "breaker_open_seconds": 0.2, "breaker_failures": 1}) as room:
        room.cheap.set(fail_next=-1, fail_status=503)
        assert (await room.answer()).route.deployment == "dear"
        seen = asked(room.cheap)

        async def checked_for_long() -> bool:
            told = await room.answer()
            assert (told.route.deployment, list(told.route.failed_attempts)) == ("dear", [])
            return asked(room.cheap) >= seen + 12

        await until(checked_for_long)
        room.cheap.set(fail_next=0)

        async def back() -> bool:
            return (await room.answer()).route.deployment == "cheap"

        await until(back)


async def test_one_that_answers_is_not_asked(make_room):
    async with make_room(healthy_ones, **OFTEN) as room:
        await room.answer()
        cheap, dear = asked(room.cheap), asked(room.dear)

        async def rounds_passed() -> bool:
            return asked(room.dear) >= dear + 5

        await until(rounds_passed)
        assert asked(room.cheap) <= cheap + 1, "but for a round that had begun"


async def test_checks_can_be_turned_off(make_room):
    async with make_room(healthy_ones, health_check_seconds=0) as room:
        for _ in range(3):
            await room.answer()
        assert asked(room.cheap) + asked(room.dear) == 0


@pytest.mark.parametrize(
    ("state", "breaker"),
    [
        (inference_pb2.MODEL_STATE_WARMING, router_pb2.BREAKER_STATE_CLOSED),
        (inference_pb2.MODEL_STATE_FAILED, router_pb2.BREAKER_STATE_OPEN),
    ],
)
async def test_a_model_that_loads_is_neither_well_nor_ill(make_room, state, breaker):
    def entries(cheap, _):
        return [ours(), cloud("cheap", cheap, health_path="/models")]

    async with make_room(entries, **OFTEN) as room:
        room.inference.state = state

        async def rounds_passed() -> bool:
            return asked(room.cheap) >= 5

        await until(rounds_passed)
        await until(lambda: breaker_is(room, breaker, "ours"))
