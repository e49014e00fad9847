"""What becomes of calls over a connection whose other end is gone and says nothing, as when its machine lost power."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceServicer, CacheServiceStub, add_CacheServiceServicer_to_server
from meshkit.client import connect
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings
from tests.support.waiting import until

SETTINGS = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=0)
REQUEST = cache_pb2.LookupAnswerRequest()
PIECE = 65_536


class Room(CacheServiceServicer):
    """A room that answers at once."""

    async def LookupAnswer(self, request: Any, context: Any) -> Any:
        return cache_pb2.LookupAnswerResponse(similarity=0.5)


class Wire:
    """Carries connections to a room; of those it has when it goes silent whatever they say is lost from then on."""

    def __init__(self, room: int) -> None:
        self.port = 0
        self._room = room
        self._silent = asyncio.Event()

    def go_silent(self) -> None:
        self._silent.set()
        self._silent = asyncio.Event()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent = self._silent
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._room)
        there = asyncio.create_task(passed_on(reader, far_writer, silent))
        back = asyncio.create_task(passed_on(far_reader, writer, silent))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way, end in ((there, far_writer), (back, writer)):
                way.cancel()
                end.close()


async def passed_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, silent: asyncio.Event) -> None:
    with suppress(OSError):
        while piece := await source.read(PIECE):
            if not silent.is_set():
                sink.write(piece)


@asynccontextmanager
async def wired(room: int) -> AsyncIterator[Wire]:
    """A wire to the room that listens on a port."""
    wire = Wire(room)
    async with await asyncio.start_server(wire.carry, "127.0.0.1", 0) as server:
        wire.port = server.sockets[0].getsockname()[1]
        yield wire


async def answered(stub: Any) -> bool:
    """Whether a call is answered; one over a connection that is being closed is not."""
    with suppress(grpc.aio.AioRpcError):
        return bool((await stub.LookupAnswer(REQUEST, timeout=10)).similarity)
    return False


@pytest.mark.slow
async def test_a_connection_that_went_silent_is_given_up_and_another_is_made() -> None:
    async with (
        running([Mount(add_CacheServiceServicer_to_server, Room())], SETTINGS, room="cache") as port,
        wired(port) as wire,
        connect(f"127.0.0.1:{wire.port}", CacheServiceStub, wait_seconds=5) as stub,
    ):
        await stub.LookupAnswer(REQUEST)
        wire.go_silent()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.LookupAnswer(REQUEST, timeout=50)  # grpc by itself would wait a minute for the answer to a ping
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, "it is known before the deadline"
        await until(lambda: answered(stub))  # while grpc still closes the old connection a call may fall on it
