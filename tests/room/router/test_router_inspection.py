"""What the router tells of its deployments."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc
import pytest
from prometheus_client import REGISTRY

from llmmesh.router.v1 import router_pb2
from meshkit.identity import Identity, acting_as
from tests.support.router_room import RouterRoom, cloud


async def listed(room: RouterRoom) -> dict[str, router_pb2.ProviderState]:
    """The deployments by name, as an admin sees them."""
    with acting_as(Identity(key_id="k", roles=frozenset({"admin"}))):
        answer = await room.stub.ListProviders(router_pb2.ListProvidersRequest())
    return {state.deployment.name: state for state in answer.providers}


def share(deployment: str) -> float | None:
    return REGISTRY.get_sample_value("llmmesh_router_share_percent", {"deployment": deployment})


def openings(deployment: str) -> float:
    return REGISTRY.get_sample_value("llmmesh_router_breaker_openings_total", {"deployment": deployment}) or 0


async def test_a_deployment_nobody_has_called_is_closed_and_without_figures(room):
    cheap = (await listed(room))["cheap"]
    assert (cheap.breaker, cheap.share_percent) == (router_pb2.BREAKER_STATE_CLOSED, 100)
    assert not cheap.HasField("callable_in")
    assert cheap.figures == router_pb2.CallFigures()


async def test_figures_are_measured_where_the_answers_pass(room):
    room.cheap.set(ttft_ms=40, tokens_per_second=100)
    for _ in range(3):
        await room.answer()
    room.cheap.set(fail_next=1)
    await room.answer()
    figures = (await listed(room))["cheap"].figures
    assert (figures.requests, figures.recent_requests, figures.error_rate) == (4, 4, 0.25)
    assert figures.first_token_p95.ToMilliseconds() >= figures.first_token_p50.ToMilliseconds() >= 40
    # Nine tokens, eight waits of 10 ms between them; a busy machine may take longer, never less.
    assert 0 < figures.tokens_per_second <= 9 / 0.08


async def test_a_caller_who_leaves_and_a_request_at_fault_are_no_errors_of_the_deployment(room):
    room.cheap.set(stall_after_chunks=0)
    call = room.stub.StreamGenerateChat(room.request(), timeout=20)
    waiting = asyncio.ensure_future(call.read())
    await room.cheap.until(lambda now: now.open_streams == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await room.cheap.until(lambda now: now.aborted_streams == 1)
    room.cheap.set(stall_after_chunks=-1, fail_next=1, fail_status=400)
    await room.failure()
    cheap = (await listed(room))["cheap"]
    assert (cheap.figures.requests, cheap.figures.error_rate) == (2, 0)
    assert cheap.breaker == router_pb2.BREAKER_STATE_CLOSED


async def test_each_state_on_the_way_out_and_back_is_told(make_room):
    def entries(cheap, _):
        return [cloud("way/back", cheap)]

    settings = {"breaker_open_seconds": 0.05, "breaker_open_jitter": 0, "breaker_stage_seconds": 0}
    async with make_room(entries, **settings) as room:
        before = openings("way/back")
        room.cheap.set(fail_next=3)
        for _ in range(3):
            await room.failure()
        left_alone = (await listed(room))["way/back"]
        assert left_alone.breaker in (router_pb2.BREAKER_STATE_OPEN, router_pb2.BREAKER_STATE_HALF_OPEN)
        assert (openings("way/back"), share("way/back")) == (before + 1, 0)
        seen = []
        while not seen or seen[-1][1] != 100:
            told = (await listed(room))["way/back"]
            if not seen or (told.breaker, told.share_percent) != seen[-1]:
                seen.append((told.breaker, told.share_percent))
            with suppress(grpc.aio.AioRpcError):
                await room.answer()
        states = [state for state in seen if state[0] != router_pb2.BREAKER_STATE_OPEN]
        assert states == [
            (router_pb2.BREAKER_STATE_HALF_OPEN, 0),
            (router_pb2.BREAKER_STATE_RETURNING, 10),
            (router_pb2.BREAKER_STATE_RETURNING, 50),
            (router_pb2.BREAKER_STATE_CLOSED, 100),
        ]
        assert share("way/back") == 100


async def test_how_long_it_is_left_alone_is_told(room):
    room.cheap.set(fail_next=1, fail_status=429, retry_after="60")
    await room.answer()
    cheap, dear = (await listed(room)).values()
    assert (cheap.breaker, cheap.share_percent) == (router_pb2.BREAKER_STATE_OPEN, 0)
    assert cheap.health == router_pb2.PROVIDER_HEALTH_UNAVAILABLE
    assert 55 < cheap.callable_in.ToTimedelta().total_seconds() <= 60
    assert "left alone for another" in cheap.detail
    assert dear.health == router_pb2.PROVIDER_HEALTH_READY
