"""A changed routes file comes into force under requests that go on; a bad one does not."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from prometheus_client import REGISTRY

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from services.gateway.peers.router import unpacked
from tests.support.router_room import RouterRoom, Told, cloud

SLOW = {"reply_tokens": 40, "tokens_per_second": 50}
States = router_pb2.ListProvidersResponse


@pytest.fixture
async def room(make_room) -> AsyncIterator[RouterRoom]:
    async with make_room(routes_poll_seconds=0.02) as running_room:
        yield running_room


def put(room: RouterRoom, *deployments: dict[str, Any], **sections: Any) -> None:
    """Replace the file in one step, as editors do."""
    draft = room.routes.with_name("draft.yaml")
    draft.write_text(yaml.safe_dump({"deployments": list(deployments), **sections}))
    draft.replace(room.routes)


def are(*names: str) -> Callable[[States], bool]:
    """Whether these deployments are in force, and the newest file."""

    def hold(states: States) -> bool:
        listed = [each.deployment.name for each in states.providers]
        return listed == list(names) and not states.routes.HasField("refuse_time")

    return hold


def refused(states: States) -> bool:
    return states.routes.HasField("refuse_time")


async def test_requests_to_come_go_by_the_new_file(room):
    assert (await room.answer()).route.deployment == "cheap"
    put(room, cloud("dear", room.dear))
    await room.until_states(are("dear"))
    assert (await room.answer()).route.deployment == "dear"
    models = await room.stub.ListModels(router_pb2.ListModelsRequest(), timeout=20)
    assert [each.name for each in models.models[0].deployments] == ["dear"]


async def test_a_stream_under_way_ends_where_it_began_and_then_its_connections_are_closed(room):
    room.cheap.set(**SLOW)
    told, call = Told([]), room.stub.StreamGenerateChat(room.request(), timeout=20)
    told.steps.extend(unpacked(await call.read()))
    assert told.route.deployment == "cheap"
    put(room, cloud("dear", room.dear))
    await room.until_states(are("dear"))
    assert room.cheap.counters.open_streams == 1, "it still speaks"
    assert (await room.answer()).route.deployment == "dear"
    while (step := await call.read()) is not grpc.aio.EOF:
        told.steps.extend(unpacked(step))
    assert told.finished.finish_reason == chat_pb2.FINISH_REASON_STOP
    assert told.finished.usage.output_tokens == SLOW["reply_tokens"]
    assert told.text.count("fox") == 5, "nothing is missing"
    await room.cheap.until(lambda now: now.open_connections == 0)


async def test_a_deployment_that_stays_as_it_was_keeps_its_connection(room):
    await room.answer()
    put(room, cloud("cheap", room.cheap))
    await room.until_states(are("cheap"))
    await room.answer()
    assert (room.cheap.counters.requests, room.cheap.counters.connections) == (2, 1)


async def test_failover_goes_on_among_the_deployments_a_request_began_with(room):
    room.cheap.set(headers_ms=600, fail_next=1)
    told, call = Told([]), room.stub.StreamGenerateChat(room.request(), timeout=20)
    await room.cheap.until(lambda now: now.requests == 1)
    put(room, cloud("other", room.cheap, serves="other"))
    await room.until_states(are("other"))
    await told.gather(call)
    assert told.route.deployment == "dear"


async def test_a_bad_file_is_refused_with_every_mistake_and_the_old_one_stays(room):
    bad = [{"name": "r", "when": "tenant.teir == 'x'", "forbid": {}}]
    put(room, cloud("dear", room.dear, quality=7, weight=-1), rules=bad)
    await room.until_states(refused)
    states = await room.states()
    assert [mistake.partition(": ")[0] for mistake in states.routes.mistakes] == [
        "deployments[0].quality",
        "deployments[0].weight",
        "rules[0].when",
        "rules[0].forbid",
    ]
    assert [each.deployment.name for each in states.providers] == ["cheap", "dear"]
    assert REGISTRY.get_sample_value("llmmesh_router_routes_refused") == 1
    assert (await room.answer()).route.deployment == "cheap"
    put(room, cloud("dear", room.dear))
    await room.until_states(are("dear"))
    assert REGISTRY.get_sample_value("llmmesh_router_routes_refused") == 0


async def test_a_file_that_is_gone_changes_nothing(room):
    room.routes.unlink()
    await room.until_states(refused)
    assert (await room.answer()).route.deployment == "cheap"


async def test_the_swapped_symlink_of_a_config_map_is_a_change(room, tmp_path: Path):
    def point_at(name: str, deployment: dict[str, Any]) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "routes.yaml").write_text(yaml.safe_dump({"deployments": [deployment]}))
        link = tmp_path / "..data_tmp"
        link.symlink_to(folder)
        link.replace(tmp_path / "..data")

    point_at("1", cloud("dear", room.dear))
    swapped = room.routes.with_name("link.yaml")
    swapped.symlink_to(tmp_path / "..data" / "routes.yaml")
    swapped.replace(room.routes)
    await room.until_states(are("dear"))
    point_at("2", cloud("cheap", room.cheap))
    await room.until_states(are("cheap"))


async def test_a_hangup_has_the_file_read_at_once(make_room):
    async with make_room(routes_poll_seconds=3600) as room:
        put(room, cloud("dear", room.dear))
        os.kill(os.getpid(), signal.SIGHUP)
        await room.until_states(are("dear"))


async def test_rules_and_strategies_change_with_the_file(room):
    best = cloud("best", room.dear, quality=0.9)
    put(room, cloud("cheap", room.cheap), best, strategies={"default": "quality"})
    await room.until_states(are("best", "cheap"))
    room.deployments = ["cheap", "best", "last"]
    assert (await room.answer()).route.deployment == "best"
    rule = {"name": "not there", "when": "true", "forbid": {"deployments": ["best"]}}
    put(room, best, cloud("last", room.cheap), rules=[rule])
    await room.until_states(are("best", "last"))
    assert (await room.answer()).route.deployment == "last"
