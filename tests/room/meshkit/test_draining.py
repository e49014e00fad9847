"""What becomes of calls when their server stops."""

from __future__ import annotations

import asyncio
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


async def test_draining_lets_running_calls_finish_and_refuses_new_ones() -> None:
    room = Room()
    serving = running([Mount(add_CacheServiceServicer_to_server, room)], SETTINGS, room="cache")
    port = await serving.__aenter__()
    async with connect(f"127.0.0.1:{port}", CacheServiceStub, wait_seconds=5) as stub:
        call = asyncio.ensure_future(stub.LookupAnswer(cache_pb2.LookupAnswerRequest()))
        await room.entered.wait()
        draining = asyncio.ensure_future(serving.__aexit__(None, None, None))
        refused = await _refused(port)
        room.release.set()
        answer = await call
        await draining
    assert answer.similarity == 0.5
    assert refused.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_that_is_cut_off_has_written_down_what_it_has_to_before_the_server_is_gone() -> None:
    room = Room()
    serving = running([Mount(add_CacheServiceServicer_to_server, room)], AT_ONCE, room="cache")
    port = await serving.__aenter__()
    async with connect(f"127.0.0.1:{port}", CacheServiceStub, wait_seconds=5) as stub:
        call = asyncio.ensure_future(stub.LookupAnswer(cache_pb2.LookupAnswerRequest()))
        await room.entered.wait()
        await serving.__aexit__(None, None, None)
        assert room.written_down
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def _refused(port: int) -> grpc.aio.AioRpcError:
    """Call on fresh connections until the draining server takes no more."""
    while True:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.aio.AioRpcError as error:
                return error
