"""The strategy `learned` through the wire: outcomes and feedback teach it, Redis keeps what it knows."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import grpc
import pytest
import yaml
from redis.asyncio import Redis

from llmmesh.router.v1 import router_pb2
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from services.router.learned.decisions import Decision, replayed
from services.router.learned.replay import main
from services.router.learned.rewards import Worth
from services.router.redis_store import DECISIONS, redis_store
from tests.support.fix_mesh import eventually
from tests.support.router_room import RouterRoom, cloud, ours

SECTIONS = {"strategies": {"default": "learned"}, "learning": {"exploration": 1_000_000}}
"""So little is tried out that chance does not show in a few dozen requests."""
QUICK = {"learning_beat_seconds": 0.01}
ACME, OTHER = "acme", "other"
_numbers = count()


@pytest.fixture
def named() -> Any:
    """Deployments of names nobody else has: what is learned of a name stays in Redis."""
    mark = f"t{next(_numbers)}"
    return lambda cheap, dear: [cloud(f"{mark}/good", cheap), cloud(f"{mark}/bad", dear)]


async def ask(room: RouterRoom, request_id: str, tenant_id: str = ACME, **changes: Any) -> str:
    with acting_as(Identity(tenant_id=tenant_id, key_id="k", request_id=request_id)):
        return (await room.answer(**changes)).route.deployment


async def judge(room: RouterRoom, request_id: str, tenant_id: str = ACME, **judgement: Any) -> None:
    identity = Identity(tenant_id=tenant_id, key_id="k", roles=frozenset({"developer"}), request_id="judging")
    with acting_as(identity):
        request = router_pb2.RecordFeedbackRequest(request_id=request_id, **judgement)
        await room.stub.RecordFeedback(request, timeout=10)


async def verdict(room: RouterRoom, request_id: str) -> grpc.StatusCode:
    """How a judgement was received."""
    try:
        await judge(room, request_id, score=1.0)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def state(room: RouterRoom) -> dict[str, Any]:
    with acting_as(Identity(key_id="k", roles=frozenset({"operator"}))):
        told = await room.stub.GetLearnedRouting(router_pb2.GetLearnedRoutingRequest(), timeout=10)
    return {each.deployment.split("/")[1]: each for each in told.deployments}


async def known(room: RouterRoom, what: Any) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        arms = await state(room)
        return arms if what(arms) else None

    return await eventually(look)


def ratings(arms: dict[str, Any]) -> float:
    return sum(each.ratings for each in arms.values())


def outcomes(arms: dict[str, Any]) -> float:
    return sum(each.outcomes for each in arms.values())


async def test_it_comes_to_ask_whom_people_like(make_room, named):
    async with make_room(named, SECTIONS, **QUICK) as room:
        for number in range(12):
            answered_by = await ask(room, f"r{number}")
            await judge(room, f"r{number}", thumbs_up=answered_by.endswith("/good"))
            await known(room, lambda arms, seen=number + 1: round(ratings(arms)) == seen)
        firsts = {await ask(room, f"later{number}") for number in range(10)}
        assert {each.split("/")[1] for each in firsts} == {"good"}
        arms = await state(room)
        assert arms["good"].mean_quality == pytest.approx(1.0)
        assert "bad" not in arms or arms["good"].mean_reward > arms["bad"].mean_reward
        assert {each.feature for each in arms["good"].weights} >= {"always", "language:english", "kind:other"}


async def test_it_turns_away_from_one_that_fails(make_room, named):
    async with make_room(named, SECTIONS, **QUICK) as room:
        room.cheap.set(fail_next=-1)
        for number in range(6):
            assert (await ask(room, f"r{number}")).endswith("/bad")
            await known(room, lambda arms, seen=number + 1: "bad" in arms and round(arms["bad"].outcomes) == seen)
        arms = await state(room)
        assert arms["bad"].mean_success == pytest.approx(1.0)
        if "good" in arms:
            assert arms["good"].mean_success == 0


async def test_it_learns_also_when_nobody_answers(make_room, named):
    async with make_room(named, SECTIONS, **QUICK) as room:
        for provider in (room.cheap, room.dear):
            provider.set(fail_next=1)
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(room, "lost")
        arms = await known(room, lambda arms: round(outcomes(arms)) == 2)
        assert {name: arm.mean_success for name, arm in arms.items()} == {"good": 0, "bad": 0}


async def test_the_last_judgement_counts_and_the_same_twice_counts_once(make_room, named, redis_url):
    for settings in ({}, {"redis_url": redis_url}):
        async with make_room(named, SECTIONS, **QUICK, **settings) as room:
            name = (await ask(room, f"once{len(settings)}")).split("/")[1]
            for judgement in ({"thumbs_up": True}, {"score": 1.0}, {"score": -0.5}, {"score": -0.5}):
                await judge(room, f"once{len(settings)}", comment="not kept", **judgement)
            arms = await known(room, lambda arms: ratings(arms) > 0)
            assert arms[name].ratings == pytest.approx(1, abs=0.01)
            assert arms[name].mean_quality == pytest.approx(0.25, abs=0.01)


async def test_an_answer_of_another_tenant_cannot_be_judged(make_room, named):
    async with make_room(named, SECTIONS, **QUICK) as room:
        await ask(room, "mine")
        for request_id, tenant_id in (("mine", OTHER), ("never", ACME)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await judge(room, request_id, tenant_id, score=-1.0)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            assert error_reason(refused.value) == "RESOURCE_NOT_FOUND"
        assert ratings(await state(room)) == 0


@pytest.mark.parametrize(
    ("judgement", "field"),
    [
        ({"request_id": "", "score": 1.0}, "request_id"),
        ({"request_id": "r"}, "score"),
        ({"request_id": "r", "score": 1.5}, "score"),
        ({"request_id": "r", "score": float("nan")}, "score"),
    ],
)
async def test_a_judgement_beyond_the_scale_is_refused(make_room, named, judgement, field):
    async with make_room(named, SECTIONS, **QUICK) as room:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await judge(room, **judgement)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in refused.value.details()


async def test_two_routers_learn_together_and_a_third_begins_with_what_they_know(make_room, named, redis_url):
    shared = {**QUICK, "redis_url": redis_url}
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(make_room(named, SECTIONS, **shared)) for _ in range(2)]
        for number, room in enumerate([one, one, two]):
            await ask(room, f"{room.cheap.base_url}-{number}")
        for room in (one, two):
            arms = await known(room, lambda arms: outcomes(arms) > 2.99)
            assert outcomes(arms) == pytest.approx(3, abs=0.01)

        async def judged_elsewhere() -> bool:
            return await verdict(two, f"{one.cheap.base_url}-0") is not grpc.StatusCode.NOT_FOUND

        await eventually(judged_elsewhere)
        await known(one, lambda arms: ratings(arms) > 0.99)
    async with make_room(named, SECTIONS, **shared) as third:
        arms = await known(third, outcomes)
        assert outcomes(arms) == pytest.approx(3, abs=0.01)
        assert ratings(arms) == pytest.approx(1, abs=0.01)


async def test_the_log_in_redis_tells_choices_with_their_chances_and_can_be_replayed(make_room, named, redis_url):
    async with make_room(named, SECTIONS, **QUICK, redis_url=redis_url) as room, Redis.from_url(redis_url) as redis:
        await redis.delete(DECISIONS)
        name = await ask(room, "logged")
        await judge(room, "logged", score=1.0)

        async def written() -> list[bytes] | None:
            lines = [fields[b"line"] for _, fields in await redis.xrange(DECISIONS)]
            return lines if len(lines) == 2 else None

        lines = await eventually(written)
        assert not any(b"foxes" in line or ACME.encode() in line for line in lines)
        (choice,) = replayed(lines, Worth())
        assert choice.first == name
        assert choice.chance == pytest.approx(0.5)
        assert choice.reward > 0.9


async def test_a_replay_weighs_rewards_as_the_routes_file_does(redis_process, tmp_path, capsys):
    routes, worth = tmp_path / "routes.yaml", {"quality": 0, "slowness": 0, "cost": 1}
    routes.write_text(yaml.safe_dump({"deployments": [ours()], "learning": {"worth": worth}}))
    dear = [Decision(0.0, f"r{number}", "m", ["always"], "ours", {"ours": 1.0}, (1.0, 0.0, 1.0)) for number in range(2)]
    async with redis_store(redis_process.url, timeout_seconds=10, decisions_kept=10) as store:
        await store.write([each.line() for each in dear])
    for given, earned in (([], 0.567), ([str(routes)], 0.0)):
        await main(redis_process.url, *given)
        assert f"2 choices earned {earned:.3f} each" in capsys.readouterr().out


async def test_without_redis_it_learns_on_and_feedback_says_to_retry(make_room, named, redis_process):
    redis_process.freeze()
    settings = {**QUICK, "redis_url": redis_process.url, "redis_timeout_seconds": 0.2}
    async with make_room(named, SECTIONS, **settings) as room:
        await ask(room, "while-away")
        assert outcomes(await known(room, outcomes)) == pytest.approx(1, abs=0.01)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await judge(room, "while-away", score=1.0)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        redis_process.thaw()

        async def judged() -> bool:
            return await verdict(room, "while-away") is grpc.StatusCode.OK

        await eventually(judged)
        await known(room, lambda arms: ratings(arms) > 0.99)
