"""Cheapest first, by billing's prices."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from tests.support.router_room import cloud, ours


async def test_the_cheapest_is_asked_first_whatever_the_order_of_the_file(make_room):
    async with make_room(price_refresh_seconds=0.02) as room:
        room.billing.prices = {"cheap": 900, "dear": 100}
        await room.billing.was_read()
        assert (await room.answer()).route.deployment == "dear"
        room.billing.prices = {"cheap": 50, "dear": 100}
        await room.billing.was_read()
        assert (await room.answer()).route.deployment == "cheap"


async def test_the_last_known_prices_count_while_billing_is_away(make_room):
    async with make_room(price_refresh_seconds=0.02) as room:
        room.billing.prices = {"cheap": 900, "dear": 100}
        await room.billing.was_read()
        room.billing.away = True
        await room.billing.was_read()
        assert (await room.answer()).route.deployment == "dear"


async def test_models_are_listed_with_their_deployments_cheapest_first(make_room):
    def entries(cheap, dear):
        return [cloud("b", cheap), cloud("a", dear), ours(serves="z", embeds=True)]

    async with make_room(entries, price_refresh_seconds=0.02) as room:
        room.billing.prices = {"b": 2, "a": 1}
        await room.billing.was_read()
        models = (await room.stub.ListModels(router_pb2.ListModelsRequest())).models
        assert [(model.name, [each.name for each in model.deployments]) for model in models] == [
            ("m", ["a", "b"]),
            ("z", ["ours"]),
        ]
        own = models[1].deployments[0]
        assert (own.region, own.context_tokens, own.embeds) == ("local", 500, True)
        assert list(own.data_classes) == [
            chat_pb2.DATA_CLASS_PUBLIC,
            chat_pb2.DATA_CLASS_INTERNAL,
            chat_pb2.DATA_CLASS_CONFIDENTIAL,
            chat_pb2.DATA_CLASS_SENSITIVE,
        ]


@pytest.mark.parametrize("name", ["completed", "throttled"])
async def test_attempts_are_counted_by_how_they_ended(room, name):
    def counted() -> float:
        labels = {"deployment": "cheap", "outcome": name}
        return REGISTRY.get_sample_value("llmmesh_router_attempts_total", labels) or 0

    before = counted()
    room.cheap.set(fail_next=int(name == "throttled"), fail_status=429)
    await room.answer()
    assert counted() == before + 1
