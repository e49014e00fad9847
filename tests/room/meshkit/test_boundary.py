"""What a caller of any room sees: identity, access, errors, deadlines, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import orjson
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceServicer, CacheServiceStub, add_CacheServiceServicer_to_server
from llmmesh.guard.v1 import guard_pb2
from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceServicer, GuardServiceStub, add_GuardServiceServicer_to_server
from meshkit.client import connect
from meshkit.deadline import seconds_remaining
from meshkit.errors import BudgetExceeded, DependencyUnavailable, FieldInvalid, error_info, error_reason, rpc_status
from meshkit.identity import NOBODY, Identity, acting_as, current_identity
from meshkit.server import Last, Mount, running, says_last
from meshkit.settings import ServiceSettings

SETTINGS = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=5)
ADA = Identity("acme", "key-1", frozenset({"developer"}), "req-1")


class Room(CacheServiceServicer):
    """A room whose behaviour the test chooses."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.seen: Identity | None = None
        self.seconds: float | None = None

    async def LookupAnswer(self, request: Any, context: Any) -> Any:
        self.seen, self.seconds = current_identity(), seconds_remaining()
        if self.fault:
            raise self.fault
        return cache_pb2.LookupAnswerResponse(similarity=0.5)

    async def PurgeAnswers(self, request: Any, context: Any) -> Any:
        return cache_pb2.PurgeAnswersResponse()


class Relay(GuardServiceServicer):
    """A room that calls another room."""

    def __init__(self, behind: Any) -> None:
        self.behind = behind
        self.closed = asyncio.Event()

    async def CheckPrompt(self, request: Any, context: Any) -> Any:
        await self.behind.LookupAnswer(cache_pb2.LookupAnswerRequest())
        return guard_pb2.CheckPromptResponse()

    async def WatchAnswer(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        try:
            yield guard_pb2.WatchAnswerResponse(text="a")
            await asyncio.Event().wait()
        finally:
            self.closed.set()


class Speaker(GuardServiceServicer):
    """A room whose stream says what the test wants, the last word as its last."""

    def __init__(self, *said: str | Exception | asyncio.Event, ends: bool = True) -> None:
        self.said = said
        self.ends = ends
        self.closed = asyncio.Event()

    @says_last
    async def WatchAnswer(self, request_iterator: Any, context: Any) -> AsyncGenerator[Any, None]:
        try:
            for place, said in enumerate(self.said):
                if isinstance(said, Exception):
                    raise said
                if isinstance(said, asyncio.Event):
                    await said.wait()
                    continue
                message = guard_pb2.WatchAnswerResponse(text=said)
                yield Last(message) if self.ends and place == len(self.said) - 1 else message
        finally:
            self.closed.set()


@asynccontextmanager
async def heard(speaker: Speaker) -> AsyncIterator[Any]:
    """A call of the speaker."""
    mounts = [Mount(add_GuardServiceServicer_to_server, speaker)]
    async with (
        running(mounts, SETTINGS, room="guard") as port,
        connect(f"127.0.0.1:{port}", GuardServiceStub, wait_seconds=5) as stub,
    ):
        yield stub.WatchAnswer(timeout=5)


@pytest.fixture
async def room() -> Room:
    return Room()


@pytest.fixture
async def stub(room: Room) -> AsyncIterator[Any]:
    mounts = [Mount(add_CacheServiceServicer_to_server, room)]
    async with (
        running(mounts, SETTINGS, room="cache") as port,
        connect(f"127.0.0.1:{port}", CacheServiceStub, wait_seconds=5) as stub,
    ):
        yield stub


async def _refusal(stub: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.LookupAnswer(cache_pb2.LookupAnswerRequest())
    return caught.value


@pytest.mark.parametrize("words", [["only"], ["a", "b", "last"]])
async def test_a_stream_that_says_its_last_comes_whole_and_ends_well(words: list[str]) -> None:
    speaker = Speaker(*words)
    async with heard(speaker) as call:
        assert [message.text async for message in call] == words
        assert await call.code() is grpc.StatusCode.OK
    assert speaker.closed.is_set()


async def test_what_a_stream_said_before_it_failed_comes_before_the_failure() -> None:
    async with heard(Speaker("a", BudgetExceeded("Spent."))) as call:
        assert (await call.read()).text == "a"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert error_reason(caught.value) == "BUDGET_EXCEEDED"


async def test_a_stream_that_forgets_its_last_is_a_fault_of_ours() -> None:
    async with heard(Speaker("a", "b", ends=False)) as call:
        assert [(await call.read()).text, (await call.read()).text] == ["a", "b"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INTERNAL


async def test_a_caller_who_leaves_closes_a_stream_that_has_not_said_its_last() -> None:
    speaker = Speaker("a", asyncio.Event(), "b")
    async with heard(speaker) as call:
        await call.read()
        call.cancel()
        await asyncio.wait_for(speaker.closed.wait(), 5)


async def test_the_callers_identity_reaches_the_room(stub: Any, room: Room) -> None:
    with acting_as(ADA):
        await stub.LookupAnswer(cache_pb2.LookupAnswerRequest())
    assert room.seen == ADA


async def test_the_deadline_shrinks_from_hop_to_hop(stub: Any, room: Room) -> None:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(
            running([Mount(add_GuardServiceServicer_to_server, Relay(stub))], SETTINGS, room="guard")
        )
        front = await stack.enter_async_context(connect(f"127.0.0.1:{port}", GuardServiceStub, wait_seconds=5))
        await front.CheckPrompt(guard_pb2.CheckPromptRequest(), timeout=2)
    assert room.seconds is not None
    assert 0 < room.seconds < 5  # not the 30 s of a call without a deadline


async def test_an_error_carries_its_reason_and_the_values_its_message_mentions(stub: Any, room: Room) -> None:
    room.fault = BudgetExceeded("The budget 'acme' is spent.", budget="acme")
    error = await _refusal(stub)
    info = error_info(error)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert info is not None
    assert (info.reason, dict(info.metadata)) == ("BUDGET_EXCEEDED", {"budget": "acme"})


async def test_an_invalid_field_is_named_for_grpc_and_for_openai_clients(stub: Any, room: Room) -> None:
    room.fault = FieldInvalid("температура", "must be 0 to 2 – «тепло»")
    error = await _refusal(stub)
    status = rpc_status(error)
    assert status is not None
    violations = error_details_pb2.BadRequest()
    assert any(detail.Unpack(violations) for detail in status.details)
    assert violations.field_violations[0].field == "температура"
    body = orjson.loads(dict(error.trailing_metadata())["x-openai-error"])
    assert body["error"]["param"] == "температура"
    assert body["error"]["message"] == "температура: must be 0 to 2 – «тепло»"


async def test_a_character_that_no_header_holds_comes_to_openai_clients_too(stub: Any, room: Room) -> None:
    room.fault = FieldInvalid("a\x7f", "must be UTF-8")
    error = await _refusal(stub)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    body = orjson.loads(dict(error.trailing_metadata())["x-openai-error"])
    assert body["error"]["param"] == "a\x7f"


@pytest.mark.parametrize(
    ("field", "message"), [("x" * 50_000, "y" * 50_000), ("поле", "ы" * 50_000)], ids=["latin", "cyrillic"]
)
async def test_a_failure_of_any_length_comes_with_its_reason(stub: Any, room: Room, field: str, message: str) -> None:
    room.fault = FieldInvalid(field, message)
    error = await _refusal(stub)
    assert (error.code(), error_reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_a_reason_to_retry_says_when(stub: Any, room: Room) -> None:
    room.fault = DependencyUnavailable("Redis is away: retry.", retry_after_seconds=1.5)
    assert dict((await _refusal(stub)).trailing_metadata())["retry-after"] == "2"


async def test_an_unknown_error_leaks_no_text(stub: Any, room: Room) -> None:
    room.fault = RuntimeError("password=hunter2")
    error = await _refusal(stub)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(error.details()) + str(error.trailing_metadata())


async def test_an_upstreams_reason_passes_through_the_room_in_front(stub: Any, room: Room) -> None:
    room.fault = BudgetExceeded("The budget 'acme' is spent.", budget="acme")
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(
            running([Mount(add_GuardServiceServicer_to_server, Relay(stub))], SETTINGS, room="guard")
        )
        front = await stack.enter_async_context(connect(f"127.0.0.1:{port}", GuardServiceStub, wait_seconds=5))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await front.CheckPrompt(guard_pb2.CheckPromptRequest())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error_reason(caught.value) == "BUDGET_EXCEEDED"
    assert "insufficient_quota" in str(dict(caught.value.trailing_metadata())["x-openai-error"])


async def test_a_room_that_is_away_is_named_unavailable_without_its_address() -> None:
    async with AsyncExitStack() as stack:
        nowhere = await stack.enter_async_context(connect("127.0.0.1:9", CacheServiceStub))
        port = await stack.enter_async_context(
            running([Mount(add_GuardServiceServicer_to_server, Relay(nowhere))], SETTINGS, room="guard")
        )
        front = await stack.enter_async_context(connect(f"127.0.0.1:{port}", GuardServiceStub, wait_seconds=5))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await front.CheckPrompt(guard_pb2.CheckPromptRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert error_reason(caught.value) == "DEPENDENCY_UNAVAILABLE"
    assert "127.0.0.1" not in str(caught.value.details())


@pytest.mark.parametrize(
    ("roles", "code"),
    [
        (frozenset({"operator"}), None),
        (frozenset({"developer"}), grpc.StatusCode.PERMISSION_DENIED),
    ],
)
async def test_the_role_written_in_the_proto_is_enforced(stub: Any, roles: frozenset[str], code: Any) -> None:
    with acting_as(Identity("acme", "key-1", roles)):
        if code is None:
            await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())
        assert caught.value.code() is code


async def test_a_call_without_a_key_is_unauthenticated_where_a_role_is_needed(stub: Any) -> None:
    with acting_as(NOBODY), pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_hanging_up_on_a_stream_ends_its_handler() -> None:
    relay = Relay(None)
    async with (
        running([Mount(add_GuardServiceServicer_to_server, relay)], SETTINGS, room="guard") as port,
        connect(f"127.0.0.1:{port}", GuardServiceStub, wait_seconds=5) as front,
    ):
        call = front.WatchAnswer()
        await call.read()
        call.cancel()
        await asyncio.wait_for(relay.closed.wait(), timeout=2)


async def test_health_follows_the_probe() -> None:
    is_ready = False

    async def probe() -> bool:
        return is_ready

    async with (
        running([], SETTINGS, room="cache", ready=probe) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        seen = [(await watch.read()).status]
        is_ready = True
        while seen[-1] != health_pb2.HealthCheckResponse.SERVING:
            seen.append((await watch.read()).status)
    assert health_pb2.HealthCheckResponse.SERVING not in seen[:-1]
