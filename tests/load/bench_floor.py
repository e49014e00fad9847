"""What a miss costs with nothing in it: its calls alone, between rooms that do nothing, through a bare Envoy.

Each room is a process of its own on grpc.aio and uvloop, as ours are. There is no JSON, no key, no rule, no table; the
provider is asked once, and Postgres for one row and one commit that is on disk.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import httpx
import psycopg
import uvloop

from tests.load.busy import Busy
from tests.load.figure import Figure
from tests.support.fix_postgres import postgres_servers
from tests.support.ports import free_port

ROOMS = ("gateway", "router", "cache", "guard", "billing")
ASKED = 300
MESSAGE = b"x" * 300
"""About the size of what rooms say to each other about a short question."""
QUESTION = b'{"model": "scripted", "messages": [{"role": "user", "content": "What is it?"}]}'
COMMIT = "SELECT pg_logical_emit_message(true, 'floor', '')"
"""The least that has to reach the disk."""

Call = Callable[..., Any]
Handlers = dict[str, "grpc.RpcMethodHandler[Any, Any]"]


async def floor_figures(provider_url: str) -> list[Figure]:
    """Latency that the bare calls add to a provider, and that of one of them."""
    with postgres_servers() as make, tempfile.TemporaryDirectory() as folder:
        server = make()
        database = server.url(server.create_database()).replace("+psycopg", "")
        async with _rooms(Path(folder), database, provider_url) as (edge, pids), httpx.AsyncClient() as http:
            assert server.process
            busy = Busy({**pids, "postgres": server.process.pid})
            return await _measured(edge, http, provider_url, busy)


async def _measured(edge: str, http: httpx.AsyncClient, provider_url: str, busy: Busy) -> list[Figure]:
    async with grpc.aio.insecure_channel(edge) as channel:
        chat, bare = _calls(channel)("gateway", "Call"), _calls(channel)("guard", "Call")
        added = []
        for _ in range(ASKED):
            meshed = await _milliseconds(lambda: chat(MESSAGE))
            added.append(meshed - await _milliseconds(lambda: _ask(http, provider_url)))
        cpu = busy.milliseconds_per(ASKED)
        one = [await _milliseconds(lambda: bare(MESSAGE)) for _ in range(ASKED)]
    return [
        _figure("the bare calls of a miss add, p50", added, f"CPU {cpu}"),
        _figure("one bare call through Envoy, p50", one, ""),
    ]


def _figure(name: str, took: list[float], detail: str) -> Figure:
    warm = sorted(took[ASKED // 10 :])
    return Figure(name, round(statistics.median(warm), 2), "ms", "", None, detail)


async def _milliseconds(ask: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await ask()
    return (time.perf_counter() - started) * 1000


async def _ask(http: httpx.AsyncClient, provider_url: str) -> None:
    (await http.post(f"{provider_url}/chat/completions", content=QUESTION)).raise_for_status()


@asynccontextmanager
async def _rooms(folder: Path, database: str, provider_url: str) -> AsyncIterator[tuple[str, dict[str, int]]]:
    """All rooms and Envoy between them; yields the address of its edge, and who runs."""
    mesh, edge = free_port(), free_port()
    processes: dict[str, asyncio.subprocess.Process] = {}
    try:
        ports = {}
        for room in ROOMS:
            given = (room, f"127.0.0.1:{mesh}", database, provider_url)
            processes[room] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.load.bench_floor", *given, stdout=asyncio.subprocess.PIPE
            )
            ports[room] = int(await _line(processes[room]))
        (folder / "envoy.json").write_text(json.dumps(_configuration([mesh, edge], ports)))
        options = ("--concurrency", "1", "--use-dynamic-base-id", "-l", "off")
        processes["envoy"] = await asyncio.create_subprocess_exec("envoy", "-c", str(folder / "envoy.json"), *options)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{edge}") as channel:
            await channel.channel_ready()
        yield f"127.0.0.1:{edge}", {name: process.pid for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            await process.wait()


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout
    return await process.stdout.readline()


def _configuration(listeners: list[int], ports: Mapping[str, int]) -> dict[str, Any]:
    routes = [{"match": {"prefix": f"/{room}/"}, "route": {"cluster": room}} for room in ports]
    return {
        "static_resources": {
            "clusters": [_cluster(room, port) for room, port in ports.items()],
            "listeners": [_listener(port, routes) for port in listeners],
        }
    }


def _cluster(room: str, port: int) -> dict[str, Any]:
    http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": room,
        "type": "STATIC",
        "typed_extension_protocol_options": {options: {"@type": f"type.googleapis.com/{options}", **http2}},
        "load_assignment": {"cluster_name": room, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _listener(port: int, routes: list[dict[str, Any]]) -> dict[str, Any]:
    http, router = (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "envoy.extensions.filters.http.router.v3.Router",
    )
    manager = {
        "@type": f"type.googleapis.com/{http}",
        "stat_prefix": "floor",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"type.googleapis.com/{router}"}}],
    }
    return {
        "name": str(port),
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _calls(channel: grpc.aio.Channel) -> Callable[[str, str], Call]:
    return lambda room, method: channel.unary_unary(f"/{room}/{method}")


async def _echo(request: bytes, context: object) -> bytes:
    return request


async def _echoes(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def _billing(database: str) -> Handlers:
    connection = await psycopg.AsyncConnection.connect(database, autocommit=True)

    def fetching(statement: str) -> Call:
        async def fetch(request: bytes, context: object) -> bytes:
            await (await connection.execute(statement.encode())).fetchall()
            return request

        return fetch

    return {"Hold": _unary(fetching("SELECT 1")), "Settle": _unary(fetching(COMMIT))}


async def _router(provider_url: str) -> Handlers:
    http = aiohttp.ClientSession()

    async def answer(request: bytes, context: object) -> AsyncIterator[bytes]:
        async with http.post(f"{provider_url}/chat/completions", data=QUESTION) as response:
            yield await response.read()

    return {"Answer": grpc.unary_stream_rpc_method_handler(answer)}


async def _gateway(mesh: str) -> Handlers:
    calls = {room: _calls(grpc.aio.insecure_channel(mesh)) for room in ROOMS}
    streams = {room: grpc.aio.insecure_channel(mesh) for room in ("router", "guard")}
    look_up, check = calls["cache"]("cache", "Call"), calls["guard"]("guard", "Call")
    hold, settle = (calls["billing"]("billing", name) for name in ("Hold", "Settle"))
    answer: Call = streams["router"].unary_stream("/router/Answer")
    watch: Call = streams["guard"].stream_stream("/guard/Watch")
    stored = set()

    async def said() -> AsyncIterator[bytes]:
        yield MESSAGE

    async def chat(request: bytes, context: object) -> bytes:
        await look_up(MESSAGE)
        await asyncio.gather(check(MESSAGE), hold(MESSAGE))
        async for _ in answer(MESSAGE):
            pass
        settling = asyncio.ensure_future(settle(MESSAGE))
        async for _ in watch(said()):
            pass
        await settling
        storing = asyncio.ensure_future(look_up(MESSAGE))
        stored.add(storing)
        storing.add_done_callback(stored.discard)
        return request

    return {"Call": _unary(chat)}


async def _idle() -> Handlers:
    return {"Call": _unary(_echo), "Watch": grpc.stream_stream_rpc_method_handler(_echoes)}


def _unary(behaviour: Call) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(behaviour)


async def serve(room: str, mesh: str, database: str, provider_url: str) -> None:
    """Be a room; says its port."""
    making = {"billing": lambda: _billing(database), "router": lambda: _router(provider_url)}
    making["gateway"] = lambda: _gateway(mesh)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(room, await making.get(room, _idle)()),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:5]))
