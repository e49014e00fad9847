"""A Qdrant server that is away, frozen, busy or full costs a caller a deadline at most, and recovers by itself."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import pytest
from qdrant_client import grpc as qdrant
from qdrant_client.grpc.collections_service_pb2_grpc import add_CollectionsServicer_to_server

from meshkit.dependency import Unavailable
from services.cache.vectorstores.port import Dimensions, Entry, Glance, Near, VectorStore
from services.cache.vectorstores.qdrant_server import QdrantServerStore, qdrant_server_store
from tests.support.waiting import until

DEADLINE_SECONDS = 0.5
SLACK_SECONDS = 1.0
"""For a busy machine."""
AXIS = [1.0, 0.0]
ENTRY = Entry("6ba7b810-9dad-11d1-80b4-00c04fd430c8", AXIS, AXIS, "acme", "small", "c1", "How?", b"so", expires_at=9e9)
OPERATIONS: dict[str, Callable[[VectorStore], Awaitable[object]]] = {
    "plausible": lambda store: store.plausible(Glance(AXIS, "acme", "c1", now=1.0, at_least=0.5, limit=3)),
    "nearest": lambda store: store.nearest(Near(AXIS, "acme", "c1", now=1.0, at_least=0.5, limit=3)),
    "put": lambda store: store.put(ENTRY),
}


class Server(qdrant.CollectionsServicer, qdrant.PointsServicer):
    """As much of Qdrant as stores an entry, with a disk that may be full and a limit that may be reached."""

    def __init__(self) -> None:
        self.full = False
        self.busy = False
        self.collections: set[str] = set()

    async def CollectionExists(self, request: Any, context: Any) -> Any:
        exists = qdrant.CollectionExists(exists=request.collection_name in self.collections)
        return qdrant.CollectionExistsResponse(result=exists)

    async def Create(self, request: Any, context: Any) -> Any:
        await self._check_room(context)
        self.collections.add(request.collection_name)
        return qdrant.CollectionOperationResponse(result=True)

    async def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        return await self._written(request, context)

    async def Upsert(self, request: Any, context: Any) -> Any:
        return await self._written(request, context)

    async def Query(self, request: Any, context: Any) -> Any:
        return qdrant.QueryResponse()

    async def _written(self, request: Any, context: Any) -> Any:
        await self._check_room(context)
        if self.busy:
            retry = (("retry-after", "1"),)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Rate limiting exceeded", retry)
        if request.collection_name not in self.collections:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Collection `{request.collection_name}` doesn't exist!")
        done = qdrant.UpdateResult(operation_id=1, status=qdrant.UpdateStatus.Completed)
        return qdrant.PointsOperationResponse(result=done)

    async def _check_room(self, context: Any) -> None:
        if self.full:
            await context.abort(grpc.StatusCode.INTERNAL, "WAL buffer size exceeds available disk space")


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def served(server: Server) -> AsyncIterator[int]:
    """Port of the scripted server."""
    listener = grpc.aio.server()
    add_CollectionsServicer_to_server(server, listener)
    qdrant.add_PointsServicer_to_server(server, listener)
    port = listener.add_insecure_port("127.0.0.1:0")
    await listener.start()
    yield port
    await listener.stop(0)


@pytest.fixture
def frozen_port() -> Iterator[int]:
    """Port of a server that takes connections and says nothing, as one does that was stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def opened(port: int) -> AbstractAsyncContextManager[QdrantServerStore]:
    return qdrant_server_store(
        "http://127.0.0.1:1",
        grpc_port=port,
        api_key=None,
        collection="answers",
        dimensions=Dimensions(accurate=2, sketch=2),
        timeout_seconds=DEADLINE_SECONDS,
    )


async def seconds_until_refused(operation: Awaitable[object]) -> float:
    started = time.monotonic()
    with pytest.raises(Unavailable):
        await operation
    return time.monotonic() - started


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("port", ["closed_port", "frozen_port"])
async def test_a_server_that_is_away_costs_the_first_caller_a_deadline(
    request: pytest.FixtureRequest, port: str, name: str
) -> None:
    async with opened(request.getfixturevalue(port)) as store:
        assert await seconds_until_refused(OPERATIONS[name](store)) < DEADLINE_SECONDS + SLACK_SECONDS


async def test_a_frozen_server_holds_up_no_crowd(frozen_port: int) -> None:
    async with opened(frozen_port) as store:
        await seconds_until_refused(OPERATIONS["plausible"](store))
        crowd = [seconds_until_refused(OPERATIONS["plausible"](store)) for _ in range(100)]
        assert sorted(await asyncio.gather(*crowd))[-2] < DEADLINE_SECONDS


@pytest.mark.parametrize("trouble", ["full", "busy"])
async def test_a_server_that_takes_no_entries_is_away_until_it_does_and_lookups_go_on(
    served: int, server: Server, trouble: str
) -> None:
    async with opened(served) as store:
        await store.put(ENTRY)
        setattr(server, trouble, True)
        await seconds_until_refused(store.put(ENTRY))
        setattr(server, trouble, False)
        await until(lambda: _puts(store))
        assert await OPERATIONS["plausible"](store) == []


async def test_a_collection_that_could_not_be_made_is_made_when_there_is_room(served: int, server: Server) -> None:
    server.full = True
    async with opened(served) as store:
        await seconds_until_refused(store.put(ENTRY))
        server.full = False
        await until(lambda: _puts(store))
        assert server.collections == {"answers"}


async def test_a_collection_that_is_gone_is_made_again(served: int, server: Server) -> None:
    async with opened(served) as store:
        await store.put(ENTRY)
        server.collections.clear()
        await seconds_until_refused(store.put(ENTRY))
        await until(lambda: _puts(store))
        assert server.collections == {"answers"}


async def _puts(store: QdrantServerStore) -> bool:
    try:
        await store.put(ENTRY)
    except Unavailable:
        return False
    return True
