"""Reads what a router counted of an experiment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from llmmesh.router.v1 import router_pb2
from meshkit.identity import Identity, acting_as
from tests.support.fix_mesh import eventually
from tests.support.router_room import RouterRoom


async def reported(room: RouterRoom, name: str) -> router_pb2.Experiment:
    """An experiment as an operator sees it."""
    with acting_as(Identity(key_id="k", roles=frozenset({"operator"}))):
        request = router_pb2.GetExperimentRequest(name=name)
        found: router_pb2.Experiment = (await room.stub.GetExperiment(request, timeout=10)).experiment
    return found


async def once_counted(report: Callable[[], Awaitable[router_pb2.Experiment]], *requests: int) -> router_pb2.Experiment:
    """The report once each variant counts so many requests."""

    async def look() -> router_pb2.Experiment | None:
        found = await report()
        return found if [each.requests for each in found.variants] == list(requests) else None

    seen: router_pb2.Experiment = await eventually(look)
    return seen


def means(variant: router_pb2.ExperimentVariant) -> dict[str, float]:
    """The mean of each measure of a variant."""
    return {router_pb2.Measure.Name(each.measure): each.mean for each in variant.figures}
