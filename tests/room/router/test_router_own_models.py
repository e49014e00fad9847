"""Our own models, through the inference room."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.inference.v1 import inference_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import ContextTooLong, FieldInvalid, error_reason
from meshkit.identity import Identity, acting_as
from tests.support.router_room import RouterRoom, cloud, ours


@pytest.fixture
async def room(make_room) -> AsyncIterator[RouterRoom]:
    async with make_room(lambda cheap, _: [ours(), cloud("cheap", cheap, serves="other")]) as running_room:
        yield running_room


async def test_the_answer_and_its_exact_counts_are_handed_on(room):
    told = await room.answer(data_class=chat_pb2.DATA_CLASS_SENSITIVE)
    assert (told.text, told.route.provider, told.route.provider_model) == ("from our own", "local", "smol")
    assert told.finished.usage == room.inference.usage
    assert room.inference.prompts[-1].model == "smol"


async def test_counts_are_estimated_when_the_engine_gives_none(room):
    room.inference.usage = None
    assert (await room.answer()).finished.usage.estimated


async def test_hanging_up_stops_the_engine(room):
    room.inference.endless = True
    call = room.stub.StreamGenerateChat(room.request(), timeout=20)
    await call.read()
    call.cancel()
    await room.inference.stopped.wait()


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (FieldInvalid("temperature", "must be 0 to 2"), "PROVIDER_REFUSED"),
        (ContextTooLong("Too long.", model="smol", limit="5", asked="9"), "CONTEXT_TOO_LONG"),
    ],
)
async def test_what_the_engine_refuses_is_refused(room, failure, reason):
    room.inference.failure = failure
    error = await room.failure()
    assert error_reason(error) == reason


async def test_what_our_own_engine_says_of_the_request_may_be_read(room):
    room.inference.failure = FieldInvalid("temperature", "must be 0 to 2")
    assert "temperature: must be 0 to 2" in (await room.failure()).details()


@pytest.mark.parametrize(
    ("state", "health", "detail"),
    [
        (inference_pb2.MODEL_STATE_READY, router_pb2.PROVIDER_HEALTH_READY, "loading weights"),
        (inference_pb2.MODEL_STATE_WARMING, router_pb2.PROVIDER_HEALTH_WARMING, "loading weights"),
        (inference_pb2.MODEL_STATE_FAILED, router_pb2.PROVIDER_HEALTH_UNAVAILABLE, "loading weights"),
    ],
)
async def test_the_state_of_a_model_is_that_of_the_inference_room(room, state, health, detail):
    room.inference.state = state
    states = {each.deployment.name: each for each in (await _providers(room))}
    assert (states["ours"].health, states["ours"].detail) == (health, detail)
    assert states["cheap"].health == router_pb2.PROVIDER_HEALTH_READY


async def test_a_model_the_inference_room_does_not_know_is_unavailable(make_room):
    async with make_room(lambda *_: [ours(model="big")]) as room:
        (state,) = await _providers(room)
        assert state.health == router_pb2.PROVIDER_HEALTH_UNAVAILABLE
        assert "'big'" in state.detail


async def _providers(room):
    with acting_as(Identity(key_id="k", roles=frozenset({"operator"}))):
        return (await room.stub.ListProviders(router_pb2.ListProvidersRequest())).providers
