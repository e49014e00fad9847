"""A second deployment is asked beside one that keeps silent."""

from __future__ import annotations

import asyncio
import socket

import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from tests.support.router_room import Told, cloud

SOON = {"strategies": {"hedges": {"m": {"after_seconds": 0.05}}}}
FOREVER_MS = 60_000


async def test_the_first_to_speak_answers_and_the_other_is_hung_up_on(make_room):
    async with make_room(sections=SOON) as room:
        room.cheap.set(ttft_ms=FOREVER_MS)
        told = await room.answer()
        assert (told.route.deployment, told.text) == ("dear", room.dear.script.reply)
        assert [(each.deployment, each.reason) for each in told.route.failed_attempts] == [
            ("cheap", "PROVIDER_TIMEOUT")
        ]
        (outpaced,) = told.route.failed_attempts
        assert (outpaced.provider, outpaced.usage.estimated) == ("cheap", True)
        assert (outpaced.usage.input_tokens, outpaced.usage.output_tokens) == (9, 0), "it read the prompt"
        assert told.finished.provider_time.ToMilliseconds() >= 50
        await room.cheap.until(lambda now: now.aborted_streams == 1 and now.open_connections == 0)


async def test_one_whose_connection_never_opens_has_read_nothing_and_is_owed_nothing(make_room):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        unheard = f"https://127.0.0.1:{mute.getsockname()[1]}/v1"
        async with make_room(
            lambda cheap, dear: [cloud("cheap", cheap, base_url=unheard), cloud("dear", dear)], SOON
        ) as room:
            told = await room.answer()
    assert told.route.deployment == "dear"
    (unasked,) = told.route.failed_attempts
    assert (unasked.deployment, unasked.reason) == ("cheap", "PROVIDER_TIMEOUT")
    assert not unasked.HasField("usage")


async def test_the_first_one_asked_may_still_be_the_first_to_speak(make_room):
    async with make_room(sections=SOON) as room:
        room.cheap.set(ttft_ms=300)
        room.dear.set(ttft_ms=FOREVER_MS)
        told = await room.answer()
        assert told.route.deployment == "cheap"
        assert [each.deployment for each in told.route.failed_attempts] == ["dear"]
        await room.dear.until(lambda now: now.aborted_streams == 1)
        assert 300 <= told.finished.provider_time.ToMilliseconds() < 2000, "time waited for both counts once"


async def test_one_that_is_quick_is_asked_alone(make_room):
    async with make_room(sections={"strategies": {"hedges": {"m": {"after_seconds": 5}}}}) as room:
        assert (await room.answer()).route.deployment == "cheap"
        assert room.dear.counters.requests == 0


async def test_a_failure_leads_to_the_next_at_once(make_room):
    async with make_room(sections={"strategies": {"hedges": {"m": {"after_seconds": 5}}}}) as room:
        room.cheap.set(fail_next=1)
        told = await room.answer()
        assert (told.route.deployment, told.route.failed_attempts[0].reason) == ("dear", "PROVIDER_UNAVAILABLE")
        assert not told.route.failed_attempts[0].HasField("usage"), "one that failed is owed nothing"


async def test_when_one_of_the_two_fails_the_other_is_waited_for(make_room):
    async with make_room(sections=SOON) as room:
        room.cheap.set(ttft_ms=300)
        room.dear.set(headers_ms=50, fail_next=1)
        told = await room.answer()
        assert told.route.deployment == "cheap"
        assert [each.reason for each in told.route.failed_attempts] == ["PROVIDER_UNAVAILABLE"]


async def test_a_request_at_fault_ends_the_race(make_room):
    async with make_room(sections=SOON) as room:
        room.cheap.set(ttft_ms=FOREVER_MS)
        room.dear.set(fail_next=1, fail_status=400)
        assert error_reason(await room.failure()) == "PROVIDER_REFUSED"
        await room.cheap.until(lambda now: now.aborted_streams == 1)


async def test_being_outpaced_is_no_failure_of_the_deployment(make_room):
    async with make_room(sections=SOON, breaker_failures=1) as room:
        room.cheap.set(ttft_ms=FOREVER_MS)
        await room.answer()
        with acting_as(Identity(key_id="k", roles=frozenset({"admin"}))):
            cheap, _ = (await room.stub.ListProviders(router_pb2.ListProvidersRequest())).providers
        assert (cheap.breaker, cheap.figures.error_rate) == (router_pb2.BREAKER_STATE_CLOSED, 0)


async def test_nobody_outside_the_constraints_is_asked_beside(make_room):
    async with make_room(sections=SOON) as room:
        room.cheap.set(ttft_ms=300)
        assert (await room.answer(deployments=["cheap"])).route.deployment == "cheap"
        assert room.dear.counters.requests == 0


@pytest.mark.parametrize(
    "options",
    [
        {"extra_json": {"store": "true"}},
        {"extra_json": {"web_search_options": "{}"}},
        {"tools_json": ['{"type": "web_search", "function": {"name": "web"}}']},
    ],
    ids=str,
)
async def test_what_a_provider_would_do_twice_is_asked_of_one(make_room, options):
    async with make_room(sections=SOON) as room:
        room.cheap.set(ttft_ms=300)
        await room.answer(options=chat_pb2.GenerationOptions(**options))
        assert room.dear.counters.requests == 0


async def test_a_tool_of_the_callers_is_no_reason_to_ask_one_alone(make_room):
    tool = '{"type":"function","function":{"name":"forecast","parameters":{}}}'
    async with make_room(sections=SOON) as room:
        room.cheap.set(ttft_ms=FOREVER_MS)
        told = await room.answer(options=chat_pb2.GenerationOptions(tools_json=[tool]))
        assert told.route.deployment == "dear"


@pytest.mark.parametrize(("tags", "asked"), [(["latency-critical"], 1), (["other"], 0), ([], 0)])
async def test_it_may_be_for_tenants_with_a_tag_alone(make_room, tags, asked):
    hedges = {"m": {"after_seconds": 0.05, "tags": ["latency-critical"]}}
    async with make_room(sections={"strategies": {"hedges": hedges}}) as room:
        room.cheap.set(ttft_ms=300)
        room.dear.set(ttft_ms=FOREVER_MS)
        request = room.request()
        request.preferences.tags.extend(tags)
        told = Told([])
        await told.gather(room.stub.StreamGenerateChat(request, timeout=20))
        assert told.route.deployment == "cheap"
        assert room.dear.counters.requests == asked


async def test_what_is_slow_for_a_deployment_is_measured(make_room):
    async with make_room(sections={"strategies": {"hedges": {"m": {}}}}) as room:
        room.cheap.set(ttft_ms=100)
        for _ in range(19):
            await room.answer()
        assert room.dear.counters.requests == 0, "nothing is known of so few calls"
        await room.answer()
        room.cheap.set(ttft_ms=FOREVER_MS)
        assert (await room.answer()).route.deployment == "dear"


async def test_a_caller_who_leaves_stops_both(make_room):
    async with make_room(sections=SOON) as room:
        for provider in (room.cheap, room.dear):
            provider.set(ttft_ms=FOREVER_MS)
        call = room.stub.StreamGenerateChat(room.request(), timeout=20)
        waiting = asyncio.ensure_future(call.read())
        await room.dear.until(lambda now: now.open_streams == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for provider in (room.cheap, room.dear):
            await provider.until(lambda now: now.aborted_streams == 1 and now.open_connections == 0)
