"""What becomes of calls when their server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceServicer, CacheServiceStub, add_CacheServiceServicer_to_server
from meshkit.client import connect
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings

SETTINGS = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=5)
AT_ONCE = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=0)


@dataclass(frozen=True)
class Asked:
    """A server that is in the midst of a call."""

    port: int
    call: asyncio.Future[Any]
    stop: Callable[[], Coroutine[Any, Any, Any]]


class Room(CacheServiceServicer):
    """A room that answers when the test says so, and has something to write down however a call ends."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.written_down = False

    async def LookupAnswer(self, request: Any, context: Any) -> Any:
        try:
            self.entered.set()
            await self.release.wait()
            return cache_pb2.LookupAnswerResponse(similarity=0.5)
        finally:
            for _ in range(100):  # it takes longer than the connection takes to go
                await asyncio.to_thread(lambda: None)
            self.written_down = True


@asynccontextmanager
async def asked(room: Room, settings: ServiceSettings) -> AsyncIterator[Asked]:
    """A server in the midst of a call; the block stops it."""
    serving = running([Mount(add_CacheServiceServicer_to_server, room)], settings, room="cache")
    port = await serving.__aenter__()
    async with connect(f"127.0.0.1:{port}", CacheServiceStub, wait_seconds=5) as stub:
        call = asyncio.ensure_future(stub.LookupAnswer(cache_pb2.LookupAnswerRequest()))
        await room.entered.wait()
        yield Asked(port, call, lambda: serving.__aexit__(None, None, None))


async def test_draining_lets_running_calls_finish_and_refuses_new_ones() -> None:
    room = Room()
    async with asked(room, SETTINGS) as server:
        draining = asyncio.ensure_future(server.stop())
        refused = await _refused(server.port)
        room.release.set()
        answer = await server.call
        await draining
    assert answer.similarity == 0.5
    assert refused.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_that_is_cut_off_has_written_down_what_it_has_to_before_the_server_is_gone() -> None:
    room = Room()
    async with asked(room, AT_ONCE) as server:
        await server.stop()
        assert room.written_down
        with pytest.raises(grpc.aio.AioRpcError):
            await server.call


async def _refused(port: int) -> grpc.aio.AioRpcError:
    """Call on fresh connections until the draining server takes no more."""
    while True:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.aio.AioRpcError as error:
                return error
