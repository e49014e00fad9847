"""A deployment on trial gets copies of requests: nobody sees its answers, waits for them, or is exposed by them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.identity import Identity, acting_as
from tests.support.experiments import means, once_counted, reported
from tests.support.router_room import RouterRoom, Told, cloud
from tests.support.scripted_provider import scripted_provider

QUICK = {"learning_beat_seconds": 0.01}
FOREVER_MS = 60_000


def entries(**shadow: Any) -> Any:
    """A cloud that answers and one that gets copies."""
    given = {"share_percent": 100, **shadow}
    return lambda cheap, dear: [cloud("cheap", cheap), cloud("dear", dear, shadow=given)]


async def ask(
    room: RouterRoom,
    shadows: tuple[str, ...] = ("dear",),
    tags: tuple[str, ...] = (),
    timeout: float = 20,
    **changes: Any,
) -> Told:
    request = room.request(deployments=["cheap"], **changes)
    request.constraints.shadows.extend(shadows)
    request.preferences.tags.extend(tags)
    told = Told([])
    with acting_as(Identity("acme", "k", request_id="r")):
        await told.gather(room.stub.StreamGenerateChat(request, timeout=timeout))
    return told


async def counted(room: RouterRoom, *requests: int) -> router_pb2.Experiment:
    return await once_counted(lambda: reported(room, "shadow-dear"), *requests)


def spent(name: str) -> float:
    return REGISTRY.get_sample_value(f"llmmesh_router_shadow_{name}_total", {"deployment": "dear"}) or 0.0


async def test_a_copy_is_answered_beside_and_measured_and_nobody_sees_it(make_room):
    async with make_room(entries(), price_refresh_seconds=0.01, **QUICK) as room:
        room.billing.prices = {"cheap": 1_000_000, "dear": 3_000_000}
        await room.billing.was_read()
        room.dear.set(reply="Nobody reads this.")
        tokens, cost = spent("tokens"), spent("cost_micros")
        told = await ask(room)
        assert (told.route.deployment, told.text) == ("cheap", room.cheap.script.reply)
        assert not told.route.failed_attempts
        found = await counted(room, 1, 1)
        original, copy = found.variants
        assert (found.shadow, original.name, copy.name) == (True, "original", "shadow")
        assert means(copy)["MEASURE_SUCCESS"] == means(original)["MEASURE_SUCCESS"] == 1
        assert means(copy)["MEASURE_COST_MICROS"] > means(original)["MEASURE_COST_MICROS"] > 0
        assert spent("tokens") > tokens
        assert spent("cost_micros") - cost == pytest.approx(means(copy)["MEASURE_COST_MICROS"])
        mine, copied = room.cheap.bodies[0]["messages"], room.dear.bodies[0]["messages"]
        assert mine == copied


async def test_a_shadow_is_no_deployment_that_answers(make_room):
    async with make_room(entries(), **QUICK) as room:
        (model,) = (await room.stub.ListModels(router_pb2.ListModelsRequest(), timeout=10)).models
        assert ([each.name for each in model.deployments], list(model.shadows)) == (["cheap"], ["dear"])
        room.cheap.set(fail_next=1)
        failed = await room.failure(deployments=["cheap", "dear"])
        assert "dear" not in failed.details()
        assert room.dear.counters.requests == 0


async def test_the_answer_waits_for_no_copy_and_no_more_are_sent_than_may_be_under_way(make_room):
    async with make_room(entries(at_once=2), **QUICK) as room:
        room.dear.set(ttft_ms=FOREVER_MS)
        for _ in range(5):
            async with asyncio.timeout(5):
                assert (await ask(room)).finished.finish_reason == chat_pb2.FINISH_REASON_STOP
        await room.dear.until(lambda now: now.open_streams == 2)
        assert room.dear.counters.requests == 2
        await counted(room, 2, 0)


async def test_a_copy_may_take_longer_than_the_caller_would_have_waited(make_room):
    def patient(cheap: Any, dear: Any) -> Any:
        unhurried = {"first_token_seconds": 20}
        on_trial = cloud("dear", dear, shadow={"share_percent": 100}, timeouts=unhurried)
        return [cloud("cheap", cheap), on_trial]

    async with make_room(patient, **QUICK) as room:
        room.dear.set(ttft_ms=2500)
        await ask(room, timeout=2)
        original, copy = (await counted(room, 1, 1)).variants
        assert means(copy)["MEASURE_SUCCESS"] == means(original)["MEASURE_SUCCESS"] == 1


async def test_a_router_that_ends_hangs_up_on_copies(make_room):
    async with scripted_provider() as lasting:
        lasting.set(ttft_ms=FOREVER_MS)

        def trial(cheap: Any, dear: Any) -> Any:
            return [cloud("cheap", cheap), cloud("dear", lasting, shadow={"share_percent": 100})]

        async with make_room(trial, **QUICK) as room:
            await ask(room)
            await lasting.until(lambda now: now.open_streams == 1)
        await lasting.until(lambda now: now.aborted_streams == 1)


async def test_a_copy_that_fails_is_counted_and_noticed_by_nobody(make_room):
    async with make_room(entries(), **QUICK) as room:
        room.dear.set(fail_next=1)
        await ask(room)
        original, copy = (await counted(room, 1, 1)).variants
        assert (means(original)["MEASURE_SUCCESS"], means(copy)["MEASURE_SUCCESS"]) == (1, 0)
        room.dear.set(cut_after_chunks=1)
        await ask(room)
        assert means((await counted(room, 2, 2)).variants[1])["MEASURE_SUCCESS"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"shadows": ()},
        {"data_class": chat_pb2.DATA_CLASS_INTERNAL},
        {"residency": chat_pb2.DATA_RESIDENCY_RUSSIA},
        {"options": chat_pb2.GenerationOptions(tools_json=['{"type":"function","function":{"name":"f"}}'])},
        {"options": chat_pb2.GenerationOptions(extra_json={"store": "true"})},
        {"text": "word " * 1500},
    ],
    ids=["policy", "class", "residency", "capability", "acts", "context"],
)
async def test_what_may_not_go_there_is_not_copied(make_room, changes):
    def tied(cheap: Any, dear: Any) -> Any:
        on_trial = {"share_percent": 100}
        return [
            cloud("cheap", cheap, region="russia", context_tokens=100_000),
            cloud("dear", dear, shadow=on_trial, region="global", data_classes=["public"], capabilities=[]),
        ]

    async with make_room(tied, **QUICK) as room:
        await ask(room)
        await counted(room, 1, 1)
        await ask(room, **changes)
        await ask(room)
        await counted(room, 2, 2)
        assert room.dear.counters.requests == 2


async def test_a_shadow_may_be_for_tenants_with_a_tag_and_for_a_share(make_room):
    async with make_room(entries(tags=["pilot"]), **QUICK) as room:
        await ask(room, tags=("other",))
        await ask(room, tags=("pilot",))
        await counted(room, 1, 1)
    async with make_room(entries(share_percent=0.0001), **QUICK) as room:
        for _ in range(20):
            await ask(room)
        assert room.dear.counters.requests == 0
