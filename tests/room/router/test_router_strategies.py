"""Who is asked first, by tier, route and the tenant's own strategy."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import error_info
from tests.support.router_room import RouterRoom, Told, cloud

GOOD, QUICK, SPARE = "good", "quick", "spare"


def entries(cheap: Any, dear: Any) -> list[dict[str, Any]]:
    return [
        cloud(GOOD, cheap, quality=0.9, first_token_seconds=0.05),
        cloud(QUICK, dear, quality=0.4, first_token_seconds=0.01),
        cloud(SPARE, dear, quality=1, priority=2),
    ]


async def answered_by(room: RouterRoom, **preferences: Any) -> str:
    request = room.request()
    request.preferences.CopyFrom(router_pb2.RoutePreferences(**preferences))
    told = Told([])
    await told.gather(room.stub.StreamGenerateChat(request, timeout=20))
    return told.route.deployment


async def test_the_tier_and_the_tenants_own_strategy_decide(make_room):
    async with make_room(entries, price_refresh_seconds=0.02) as room:
        room.billing.prices = {GOOD: 90, QUICK: 10, SPARE: 1}
        await room.billing.was_read()
        assert await answered_by(room) == QUICK
        assert await answered_by(room, tier=chat_pb2.TIER_ENTERPRISE) == GOOD
        assert await answered_by(room, strategy=chat_pb2.ROUTING_STRATEGY_QUALITY) == GOOD


async def test_the_file_decides_for_a_route(make_room):
    async with make_room(entries, sections={"strategies": {"models": {"m": "quality"}}}) as room:
        assert await answered_by(room, tier=chat_pb2.TIER_FREE) == GOOD


async def test_the_next_priority_answers_when_all_of_the_first_fail(make_room):
    async with make_room(entries) as room:
        room.cheap.set(fail_next=1)
        room.dear.set(fail_next=1)
        told = await room.answer()
        assert told.route.deployment == SPARE
        assert [each.deployment for each in told.route.failed_attempts] == [GOOD, QUICK]


async def test_measured_times_replace_the_expected_ones(make_room):
    async with make_room(entries) as room:
        room.dear.set(ttft_ms=200)
        latency = chat_pb2.ROUTING_STRATEGY_LATENCY
        assert [await answered_by(room, strategy=latency) for _ in range(2)] == [QUICK, GOOD]


@pytest.mark.parametrize("field", ["tier", "strategy"])
async def test_an_unknown_preference_is_named(room, field):
    request = room.request()
    request.preferences.CopyFrom(router_pb2.RoutePreferences(**{field: 99}))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.stub.StreamGenerateChat(request, timeout=20).read()
    info = error_info(caught.value)
    assert info
    assert info.metadata["field"] == f"preferences.{field}"


async def test_embeddings_are_ranked_the_same_way(make_room):
    def vectors(cheap: Any, dear: Any) -> list[dict[str, Any]]:
        return [cloud("a", cheap, embeds=True), cloud("b", dear, embeds=True, quality=0.9)]

    async with make_room(vectors) as room:
        preferences = router_pb2.RoutePreferences(tier=chat_pb2.TIER_ENTERPRISE)
        request = router_pb2.EmbedTextRequest(
            model="m", texts=["fox"], constraints=room.constraints(), preferences=preferences
        )
        assert (await room.stub.EmbedText(request, timeout=20)).route.deployment == "b"
