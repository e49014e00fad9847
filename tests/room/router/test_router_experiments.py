"""Experiments through the router's wire: variants are carried out, outcomes counted once, replicas agree."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import grpc
import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from tests.support.experiments import means, once_counted, reported
from tests.support.fix_mesh import eventually
from tests.support.router_room import RouterRoom, Told

QUICK = {"learning_beat_seconds": 0.01}
PROMPTS = {"brief": {"system": "Be brief."}}
_numbers = count()


@pytest.fixture
def sections() -> dict[str, Any]:
    """An experiment of a name nobody else has: what is counted stays in Redis."""
    variants = [{"name": "a", "deployments": ["cheap"]}, {"name": "b", "deployments": ["dear"], "prompt": "brief"}]
    trial = {"name": f"t{next(_numbers)}", "model": "m", "least_requests": 20, "variants": variants}
    return {"experiments": [trial], "prompts": PROMPTS}


async def split(room: RouterRoom) -> router_pb2.Split:
    (model,) = (await room.stub.ListModels(router_pb2.ListModelsRequest(), timeout=10)).models
    found: router_pb2.Split = model.split
    return found


async def ask(room: RouterRoom, place: int | str, key: str = "k", request_id: str = "r", **changes: Any) -> Told:
    """Put a request to a variant by its place, or by a version of one's own."""
    version = place if isinstance(place, str) else (await split(room)).variants[place].version
    request = room.request(**changes)
    request.prompt.variant = version
    told = Told([])
    with acting_as(Identity(tenant_id="acme", key_id=key, request_id=request_id)):
        await told.gather(room.stub.StreamGenerateChat(request, timeout=20))
    return told


async def judge(room: RouterRoom, request_id: str, score: float) -> None:
    with acting_as(Identity("acme", "k", frozenset({"developer"}), "judging")):
        request = router_pb2.RecordFeedbackRequest(request_id=request_id, score=score)
        await room.stub.RecordFeedback(request, timeout=10)


async def report(room: RouterRoom) -> router_pb2.Experiment:
    """The one experiment there is, which looks the same in the list and alone."""
    with acting_as(Identity(key_id="k", roles=frozenset({"operator"}))):
        listed = await room.stub.ListExperiments(router_pb2.ListExperimentsRequest(), timeout=10)
    (found,) = listed.experiments
    alone = await reported(room, found.name)
    assert [each.version for each in alone.variants] == [each.version for each in found.variants]
    return alone


async def known(room: RouterRoom, *requests: int) -> router_pb2.Experiment:
    return await once_counted(lambda: report(room), *requests)


async def test_each_variant_is_answered_by_its_own_and_counted(make_room, sections):
    async with make_room(sections=sections, price_refresh_seconds=0.01, **QUICK) as room:
        room.billing.prices = {"cheap": 1_000_000, "dear": 2_000_000}
        await room.billing.was_read()
        for place, name in enumerate(["cheap", "dear", "dear"]):
            told = await ask(room, min(place, 1))
            assert (told.route.deployment, told.route.variant_use) == (name, router_pb2.VARIANT_USE_APPLIED)
        assert room.dear.bodies[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
        one, other = (await known(room, 1, 2)).variants
        assert means(one)["MEASURE_SUCCESS"] == means(other)["MEASURE_SUCCESS"] == 1
        assert means(one)["MEASURE_ABANDONED"] == means(one)["MEASURE_FALLBACK"] == 0
        assert means(other)["MEASURE_COST_MICROS"] > means(one)["MEASURE_COST_MICROS"] > 0
        assert means(one)["MEASURE_OUTPUT_TOKENS"] > 0
        assert means(one)["MEASURE_FIRST_TOKEN_SECONDS"] > 0
        assert one.begin_time.seconds > 1_700_000_000
        assert "not enough data" in (await report(room)).conclusion


async def test_one_that_another_rescues_is_counted_where_it_was_assigned(make_room, sections):
    async with make_room(sections=sections, **QUICK) as room:
        room.dear.set(fail_next=1)
        told = await ask(room, 1)
        assert (told.route.deployment, told.route.variant_use) == ("cheap", router_pb2.VARIANT_USE_REPLACED)
        assert room.cheap.bodies[-1]["messages"][0]["content"] == "Be brief.", "still the variant's prompt"
        _, other = (await known(room, 0, 1)).variants
        assert (means(other)["MEASURE_FALLBACK"], means(other)["MEASURE_SUCCESS"]) == (1, 1)


async def test_failures_and_callers_who_leave_are_told_apart(make_room, sections):
    async with make_room(sections=sections, **QUICK) as room:
        for provider in (room.cheap, room.dear):
            provider.set(fail_next=1)
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(room, 0)
        room.cheap.set(ttft_ms=60_000)
        request = room.request()
        request.prompt.variant = (await split(room)).variants[0].version
        call = room.stub.StreamGenerateChat(request, timeout=20)
        await room.cheap.until(lambda now: now.open_streams == 1)
        call.cancel()
        one, _ = (await known(room, 2, 0)).variants
        assert (means(one)["MEASURE_SUCCESS"], means(one)["MEASURE_ABANDONED"]) == (0, 0.5)


async def test_what_constraints_forbid_is_neither_used_nor_counted(make_room, sections):
    async with make_room(sections=sections, **QUICK) as room:
        for place in (0, 1):
            told = await ask(room, place, deployments=["cheap"])
            use = router_pb2.VARIANT_USE_BARRED if place else router_pb2.VARIANT_USE_APPLIED
            assert (told.route.deployment, told.route.variant_use) == ("cheap", use)
        assert room.dear.counters.requests == 0
        found = await known(room, 0, 0)
        assert [each.left_out for each in found.variants] == [1, 1]


async def test_a_version_of_another_file_is_no_variant(make_room, sections):
    async with make_room(sections=sections, **QUICK) as room:
        told = await ask(room, "t0/a@older")
        assert told.route.variant_use == router_pb2.VARIANT_USE_UNSPECIFIED
        await known(room, 0, 0)


async def test_feedback_counts_for_its_variant_and_the_last_word_is_it(make_room, sections, redis_url):
    for place, settings in enumerate(({}, {"redis_url": redis_url})):
        async with make_room(sections=sections, **QUICK, **settings) as room:
            request_id = f"{sections['experiments'][0]['name']}-{place}"
            await ask(room, 1, request_id=request_id)
            for score in (1.0, 1.0, -0.5):
                await judge(room, request_id, score)

            async def judged(room: RouterRoom = room) -> router_pb2.VariantFigure | None:
                figures = (await report(room)).variants[1].figures
                return next((each for each in figures if each.measure == router_pb2.MEASURE_QUALITY), None)

            quality = await eventually(judged)
            assert (quality.count, quality.mean) == (1, pytest.approx(0.25))


async def test_two_routers_count_together_and_a_third_goes_on(make_room, sections, redis_url):
    shared = {**QUICK, "redis_url": redis_url}
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(make_room(sections=sections, **shared)) for _ in range(2)]
        for number, room in enumerate([one, two, one, two, two]):
            await ask(room, number % 2, key=f"key{number}")
        for room in (one, two):
            found = await known(room, 3, 2)
            assert found.variants[0].groups >= 2
    async with make_room(sections=sections, **shared) as third:
        await known(third, 3, 2)


async def test_while_redis_is_away_counts_wait(make_room, sections, redis_process):
    redis_process.freeze()
    settings = {**QUICK, "redis_url": redis_process.url, "redis_timeout_seconds": 0.2}
    async with make_room(sections=sections, **settings) as room:
        await ask(room, 0)
        await known(room, 1, 0)
        redis_process.thaw()
        async with make_room(sections=sections, **settings) as second:
            await known(second, 1, 0)


async def test_an_experiment_nobody_planned_is_not_found(make_room, sections):
    async with make_room(sections=sections) as room:
        admin = acting_as(Identity(key_id="k", roles=frozenset({"admin"})))
        with admin, pytest.raises(grpc.aio.AioRpcError) as refused:
            await room.stub.GetExperiment(router_pb2.GetExperimentRequest(name="none"), timeout=10)
        assert error_reason(refused.value) == "RESOURCE_NOT_FOUND"


async def test_a_changed_template_is_another_variant_from_the_next_request_on(make_room, sections):
    async with make_room(sections=sections, routes_poll_seconds=0.01, **QUICK) as room:
        before = (await split(room)).variants
        await ask(room, 1)
        room.routes.write_text(room.routes.read_text().replace("Be brief.", "Be terse."))

        async def changed() -> list[Any] | None:
            now = (await split(room)).variants
            return list(now) if now != before else None

        one, other = await eventually(changed)
        assert one.version == before[0].version
        assert other.version != before[1].version
        assert (await ask(room, before[1].version)).route.variant_use == router_pb2.VARIANT_USE_UNSPECIFIED
        assert (await ask(room, other.version)).route.variant_use == router_pb2.VARIANT_USE_APPLIED
        assert room.dear.bodies[-1]["messages"][0]["content"] == "Be terse."
        await known(room, 0, 1)


async def test_models_without_an_experiment_have_no_split(room):
    (model,) = (await room.stub.ListModels(router_pb2.ListModelsRequest(), timeout=10)).models
    assert not model.HasField("split")
    options = chat_pb2.GenerationOptions(user="ada")
    assert (await room.answer(options=options)).route.variant_use == router_pb2.VARIANT_USE_UNSPECIFIED
