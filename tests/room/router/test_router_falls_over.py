"""Providers that fail before the first token."""

from __future__ import annotations

import asyncio

import pytest
from google.rpc import error_details_pb2

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import MeshError, ModelWarming, error_info, error_reason, rpc_status
from tests.support.router_room import cloud, ours


def retry_seconds(error) -> float:
    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in rpc_status(error).details)
    return info.retry_delay.ToMilliseconds() / 1000


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"fail_next": -1, "fail_status": 500}, "PROVIDER_UNAVAILABLE"),
        ({"fail_next": -1, "fail_status": 503}, "PROVIDER_UNAVAILABLE"),
        ({"fail_next": -1, "fail_status": 429}, "RATE_LIMITED"),
        ({"fail_next": -1, "fail_status": 401}, "PROVIDER_REFUSED"),
        ({"fail_next": -1, "fail_status": 403}, "PROVIDER_REFUSED"),
        ({"fail_next": -1, "fail_status": 404}, "PROVIDER_REFUSED"),
        ({"fail_next": -1, "fail_status": 400, "error_code": "context_length_exceeded"}, "CONTEXT_TOO_LONG"),
        ({"html": True}, "PROVIDER_UNAVAILABLE"),
        ({"cut_after_chunks": 0}, "PROVIDER_UNAVAILABLE"),
        ({"malformed_chunk": 0}, "PROVIDER_UNAVAILABLE"),
        ({"error_chunk": 0}, "PROVIDER_UNAVAILABLE"),
        ({"verbatim": ": nothing but a comment\n\n"}, "PROVIDER_UNAVAILABLE"),
    ],
)
async def test_the_next_deployment_answers(room, knobs, reason):
    room.cheap.set(**knobs)
    told = await room.answer()
    assert (told.route.deployment, told.text) == ("dear", room.dear.script.reply)
    assert [(each.deployment, each.reason) for each in told.route.failed_attempts] == [("cheap", reason)]


async def test_a_provider_that_cannot_be_reached_is_passed_over(make_room, free_port):
    gone = {"base_url": f"http://127.0.0.1:{free_port}/v1"}
    async with make_room(lambda cheap, dear: [cloud("cheap", cheap, **gone), cloud("dear", dear)]) as room:
        assert (await room.answer()).route.deployment == "dear"


@pytest.mark.parametrize("knob", ["headers_ms", "ttft_ms"])
async def test_a_provider_too_slow_for_its_first_token_is_passed_over_and_hung_up_on(make_room, knob):
    quick = {"first_token_seconds": 0.15}
    async with make_room(lambda cheap, dear: [cloud("cheap", cheap, timeouts=quick), cloud("dear", dear)]) as room:
        room.cheap.set(**{knob: 60_000})
        told = await room.answer()
        assert [each.reason for each in told.route.failed_attempts] == ["PROVIDER_TIMEOUT"]
        assert told.finished.provider_time.ToMilliseconds() >= 150
        await room.cheap.until(lambda now: now.open_connections == 0)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_the_provider_refuses_goes_to_nobody_else(room, status, capsys):
    leak = "Bad value 'my secret prompt' for key sk-scripted"
    room.cheap.set(fail_next=-1, fail_status=status, error_message=leak, error_code="invalid_value")
    error = await room.failure("my secret prompt")
    assert error_reason(error) == "PROVIDER_REFUSED"
    told = {"provider": "cheap", "status": str(status), "attempts": "cheap=PROVIDER_REFUSED"}
    assert dict(error_info(error).metadata) == told
    assert "invalid_value" in error.details()
    logged = capsys.readouterr().out
    assert "provider_failed" in logged
    for text in (error.details(), logged):
        assert "secret" not in text
    assert room.dear.counters.requests == 0


async def test_a_context_too_long_everywhere_is_said_so(room):
    for provider in (room.cheap, room.dear):
        provider.set(fail_next=-1, fail_status=400, error_code="context_length_exceeded")
    assert error_reason(await room.failure()) == "CONTEXT_TOO_LONG"


async def test_when_nobody_answers_the_caller_learns_when_to_retry(room):
    room.cheap.set(fail_next=-1, fail_status=429, retry_after="7")
    room.dear.set(fail_next=-1, fail_status=429, retry_after="30")
    error = await room.failure()
    assert error_reason(error) == "PROVIDER_UNAVAILABLE"
    assert retry_seconds(error) == 7
    assert "cheap: RATE_LIMITED; dear: RATE_LIMITED" in error.details()


async def test_a_deployment_that_keeps_failing_is_left_alone_for_a_while(make_room):
    async with make_room(breaker_open_seconds=60) as room:
        room.cheap.set(fail_next=-1)
        for _ in range(5):
            assert (await room.answer()).route.deployment == "dear"
        assert room.cheap.counters.requests == 3


async def test_a_deployment_that_recovers_is_used_again(make_room):
    async with make_room(breaker_open_seconds=0.05) as room:
        room.cheap.set(fail_next=3)
        for _ in range(3):
            await room.answer()
        async with asyncio.timeout(5):
            while (await room.answer()).route.deployment != "cheap":
                pass


async def test_retry_after_is_honoured_at_the_first_failure(room):
    room.cheap.set(fail_next=1, fail_status=429, retry_after="60")
    await room.answer()
    assert (await room.answer()).route.failed_attempts == []
    assert room.cheap.counters.requests == 1


async def test_our_own_warming_model_is_told_apart_from_an_outage(make_room):
    async with make_room(lambda *_: [ours()]) as room:
        room.inference.failure = ModelWarming("smol is loading.", retry_after_seconds=12)
        error = await room.failure()
        assert error_reason(error) == "MODEL_WARMING"
        assert retry_seconds(error) == 12


async def test_while_our_own_model_warms_a_cloud_answers(make_room):
    async with make_room(lambda cheap, _: [ours(), cloud("cheap", cheap)]) as room:
        room.inference.failure = ModelWarming("smol is loading.", retry_after_seconds=12)
        told = await room.answer()
        assert told.route.deployment == "cheap"
        assert [each.reason for each in told.route.failed_attempts] == ["MODEL_WARMING"]


async def test_a_fault_inside_our_own_inference_tells_nothing_about_it(make_room):
    async with make_room(lambda *_: [ours()]) as room:
        room.inference.failure = MeshError("weights at /secret/path")
        error = await room.failure()
        assert error_reason(error) == "PROVIDER_UNAVAILABLE"
        assert "secret" not in error.details()


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"residency": chat_pb2.DATA_RESIDENCY_RUSSIA}, "REGION_NOT_ALLOWED", "cheap processes data in region global"),
        ({"data_class": chat_pb2.DATA_CLASS_SENSITIVE}, "REGION_NOT_ALLOWED", "dear may not hold sensitive data"),
        ({"data_class": chat_pb2.DATA_CLASS_UNSPECIFIED}, "REGION_NOT_ALLOWED", "may not hold sensitive data"),
        ({"deployments": []}, "MODEL_NOT_ALLOWED", "cheap is not among the deployments allowed"),
        ({"deployments": ["other"]}, "MODEL_NOT_ALLOWED", "dear is not among the deployments allowed"),
        ({"model": "missing"}, "MODEL_NOT_FOUND", "'missing'"),
        (
            {"options": chat_pb2.GenerationOptions(max_output_tokens=5000)},
            "CONTEXT_TOO_LONG",
            "cheap holds 1000 tokens",
        ),
        ({"options": chat_pb2.GenerationOptions(tools_json=["{"])}, "FIELD_INVALID", "tools[0]"),
        ({"options": chat_pb2.GenerationOptions(extra_json={"x": '1, "model": "y"'})}, "FIELD_INVALID", "x: must be"),
    ],
)
async def test_what_nobody_may_answer_is_refused_before_anything_is_sent(room, changes, reason, words):
    error = await room.failure(**changes)
    assert error_reason(error) == reason
    assert words in error.details()
    assert room.cheap.counters.requests + room.dear.counters.requests == 0


async def test_sensitive_data_stays_at_home_even_when_home_fails(make_room):
    async with make_room(lambda cheap, _: [ours(), cloud("cheap", cheap)]) as room:
        room.inference.failure = MeshError("broken")
        error = await room.failure(data_class=chat_pb2.DATA_CLASS_SENSITIVE)
        assert error_reason(error) == "PROVIDER_UNAVAILABLE"
        assert room.cheap.counters.requests == 0
