"""Room to room through the mesh listener: spread, tried again where that is safe, refused fast where nobody is."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceStub
from llmmesh.gateway.v1 import gateway_pb2, openai_pb2
from llmmesh.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from llmmesh.gateway.v1.openai_pb2_grpc import OpenAIServiceStub
from meshkit.client import connect
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from tests.envoy.rooms import CacheRoom, OpenAIRoom, cache_rooms, gateway_room
from tests.support.fix_envoy import RunningEnvoy, StartEnvoy, running_envoy
from tests.support.waiting import until

LOOKUP = cache_pb2.LookupAnswerRequest()
STORE = cache_pb2.StoreAnswerRequest()
WAITING = openai_pb2.CreateChatCompletionRequest(body=HttpBody(data=b'{"do": "wait"}'))


@asynccontextmanager
async def cache_of(envoy: RunningEnvoy, replicas: int = 1) -> AsyncIterator[CacheServiceStub]:
    """The cache as any room reaches it, once its replicas are healthy."""
    await envoy.healthy("cache", replicas)
    async with connect(envoy.mesh_target, CacheServiceStub, wait_seconds=5) as stub:
        yield stub


async def test_calls_over_one_connection_spread_over_the_replicas(start_envoy: StartEnvoy) -> None:
    rooms = [CacheRoom(), CacheRoom()]
    async with cache_rooms(*rooms) as ports, cache_of(await start_envoy({"cache": ports}), 2) as cache:
        for _ in range(20):
            await cache.LookupAnswer(LOOKUP)
    assert [room.calls for room in rooms] == [10, 10]


async def test_a_read_that_fails_on_one_replica_succeeds_on_the_other(start_envoy: StartEnvoy) -> None:
    rooms = [CacheRoom(failures=1000), CacheRoom()]
    async with cache_rooms(*rooms) as ports, cache_of(await start_envoy({"cache": ports}), 2) as cache:
        for _ in range(10):
            await cache.LookupAnswer(LOOKUP)
    assert rooms[1].calls == 10


async def test_a_write_that_was_received_is_not_sent_again(start_envoy: StartEnvoy) -> None:
    room = CacheRoom(failures=1)
    async with cache_rooms(room) as ports, cache_of(await start_envoy({"cache": ports})) as cache:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cache.StoreAnswer(STORE)
    assert (caught.value.code(), error_reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert room.calls == 1


async def test_a_lone_room_that_keeps_saying_unavailable_is_not_ejected(start_envoy: StartEnvoy) -> None:
    room = CacheRoom(failures=20)
    async with cache_rooms(room) as ports, cache_of(await start_envoy({"cache": ports})) as cache:
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError):
                await cache.StoreAnswer(STORE)
        await cache.StoreAnswer(STORE)
    assert room.calls == 21


async def test_no_call_is_lost_when_a_replica_is_killed(start_envoy: StartEnvoy) -> None:
    async with _cache_process() as (doomed, port), cache_rooms(CacheRoom()) as ports:
        envoy = await start_envoy({"cache": [port, *ports]})
        async with cache_of(envoy, 2) as cache:
            await asyncio.gather(*(cache.LookupAnswer(LOOKUP) for _ in range(4)))
            doomed.kill()
            for _ in range(20):
                await cache.LookupAnswer(LOOKUP)
            await envoy.healthy("cache", 1)


async def test_a_room_without_a_replica_is_unavailable_at_once_and_found_when_it_comes(
    start_envoy: StartEnvoy, free_port: int
) -> None:
    envoy = await start_envoy({"cache": [free_port]})
    async with connect(envoy.mesh_target, CacheServiceStub, wait_seconds=5) as cache:
        started = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cache.LookupAnswer(LOOKUP)
        assert time.monotonic() - started < 0.5
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with _cache_process(free_port):
            started = time.monotonic()
            await envoy.healthy("cache")
            await cache.LookupAnswer(LOOKUP)
            assert time.monotonic() - started < 3


async def test_identity_and_request_id_travel_unchanged(start_envoy: StartEnvoy) -> None:
    async with gateway_room() as port:
        envoy = await start_envoy({"gateway": [port]})
        await envoy.healthy("gateway")
        identity = Identity("acme", "key-7", frozenset({"developer"}), "request-7")
        async with connect(envoy.mesh_target, GatewayServiceStub, wait_seconds=5) as gateway:
            with acting_as(identity):
                call = gateway.ListModels(gateway_pb2.ListModelsRequest())
            name = (await call).models[0].name
    assert name == "acme/key-7/request-7"


async def test_a_client_connects_anew_after_a_while_and_its_streams_go_on(
    start_envoy: StartEnvoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.envoy.mesh.CONNECTION_SECONDS", 0.5)
    room = OpenAIRoom()
    async with gateway_room(room) as port:
        envoy = await start_envoy({"gateway": [port]})
        await envoy.healthy("gateway")
        async with (
            connect(envoy.mesh_target, OpenAIServiceStub, wait_seconds=5) as openai,
            connect(envoy.mesh_target, GatewayServiceStub) as gateway,
        ):
            with acting_as(Identity("acme", "key-1", frozenset({"developer"}))):
                answer = aiter(openai.CreateChatCompletion(WAITING))
                assert (await anext(answer)).data == b"data: 1\n\n"
                await _connected_anew(envoy, gateway)
            room.go_on.set()
            assert [piece.data async for piece in answer] == [b"data: 2\n\n"]


async def test_prometheus_tells_rpcs_of_the_mesh_apart(start_envoy: StartEnvoy) -> None:
    async with cache_rooms(CacheRoom()) as ports:
        envoy = await start_envoy({"cache": ports})
        async with cache_of(envoy) as cache:
            await cache.LookupAnswer(LOOKUP)
        async with httpx.AsyncClient() as http:
            page = (await http.get(f"{envoy.admin_url}/stats/prometheus")).text
    lines = [line for line in page.splitlines() if line.startswith("envoy_cluster_grpc_success")]
    assert len(lines) == 1
    assert 'grpc_method="LookupAnswer"' in lines[0]
    assert 'grpc_service="llmmesh.cache.v1.CacheService"' in lines[0]


async def test_clients_that_take_every_connection_shut_out_nobody_inside(tmp_path: Path) -> None:
    async with (
        cache_rooms(CacheRoom()) as ports,
        running_envoy({"cache": ports}, tmp_path, most_connections=8) as envoy,
        AsyncExitStack() as crowd,
    ):
        assert await _some_are_refused(envoy, crowd, 9)
        for _ in range(4):
            async with httpx.AsyncClient() as kubelet:
                ready = await kubelet.get(f"http://127.0.0.1:{envoy.status_port}/ready")
            assert ready.status_code == 200
        async with cache_of(envoy) as cache:
            await cache.LookupAnswer(LOOKUP)
        assert await _some_are_refused(envoy, crowd, 2), "connections inside freed places of clients when they ended"


async def _connected_anew(envoy: RunningEnvoy, gateway: GatewayServiceStub) -> None:
    """Call on until a connection more has been made than the first call had."""
    async with httpx.AsyncClient(base_url=envoy.admin_url) as admin:

        async def connections() -> int:
            await gateway.ListModels(gateway_pb2.ListModelsRequest())
            line = (await admin.get("/stats?filter=http.mesh.downstream_cx_total")).text
            return int(line.removeprefix("http.mesh.downstream_cx_total: "))

        first = await connections()

        async def more() -> bool:
            return await connections() > first

        await until(more)


async def _some_are_refused(envoy: RunningEnvoy, crowd: AsyncExitStack, count: int) -> bool:
    """Connect so many clients that send nothing; whether the edge closes the connection of any."""
    ends = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", envoy.edge_port)
        crowd.callback(writer.close)
        ends.append(asyncio.ensure_future(reader.read()))
    ended, waiting = await asyncio.wait(ends, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    for end in waiting:
        end.cancel()
    return bool(ended)


@asynccontextmanager
async def _cache_process(port: int = 0) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A cache room in a process of its own, fit to be killed."""
    script = Path(__file__).with_name("cache_process.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(port), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield process, int(await asyncio.wait_for(process.stdout.readline(), 20))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
