"""What an operator sees of a room's process: settings mistakes, logs, metrics, traces, signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceStub
from meshkit.client import connect
from meshkit.identity import Identity, acting_as

ROOM = '''
"""A room of one RPC, run as a process."""
from contextlib import asynccontextmanager
from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceServicer, add_CacheServiceServicer_to_server
from meshkit.log import get_logger
from meshkit.run import serve
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings, SettingsConfigDict

class Config(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="DEMO_", frozen=True)
    size: int = 1
    shares: tuple[int, ...] = ()

class Servicer(CacheServiceServicer):
    async def LookupAnswer(self, request, context):
        get_logger().info("looked_up", size=3)
        return cache_pb2.LookupAnswerResponse()

@asynccontextmanager
async def app(config):
    async with running([Mount(add_CacheServiceServicer_to_server, Servicer())], config, room="demo") as port:
        yield port
    get_logger().info("delivered")

serve("demo", Config, app)
'''


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "room.py"
    path.write_text(ROOM)
    return path


@asynccontextmanager
async def process(script: Path, **environment: str) -> AsyncIterator[Any]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        env={**os.environ, "DEMO_LISTEN": "127.0.0.1:0", "DEMO_METRICS_LISTEN": "", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def next_event(child: Any, event: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            line = json.loads(await child.stdout.readline())
            if line["event"] == event:
                return dict(line)


async def test_every_settings_mistake_is_listed_at_once(script: Path) -> None:
    async with process(script, DEMO_SIZE="big", DEMO_LOG_LEVEL="loud") as child:
        _, errors = await child.communicate()
    assert child.returncode == 78
    assert "DEMO_SIZE: " in errors.decode()
    assert "DEMO_LOG_LEVEL: " in errors.decode()


async def test_a_setting_that_should_be_json_and_is_not_is_named_like_any_mistake(script: Path) -> None:
    async with process(script, DEMO_SHARES="10, 50") as child:
        _, errors = await child.communicate()
    assert child.returncode == 78
    assert "DEMO_SHARES: must be JSON" in errors.decode()


async def test_sigterm_drains_and_exits_clean(script: Path) -> None:
    async with process(script) as child:
        await next_event(child, "serving")
        child.send_signal(signal.SIGTERM)
        await next_event(child, "draining")
        assert await asyncio.wait_for(child.wait(), 15) == 0


async def test_what_is_owed_to_others_does_not_wait_for_a_collector_that_is_away(script: Path, free_port: int) -> None:
    async with process(script, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port}") as child:
        port = (await next_event(child, "serving"))["port"]
        async with connect(f"127.0.0.1:{port}", CacheServiceStub, wait_seconds=5) as stub:
            await stub.LookupAnswer(cache_pb2.LookupAnswerRequest())
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(4):  # the exporter tries for six seconds and more
            await next_event(child, "delivered")


async def test_a_log_line_names_the_request_and_its_tenant(script: Path) -> None:
    async with process(script) as child:
        port = (await next_event(child, "serving"))["port"]
        async with connect(f"127.0.0.1:{port}", CacheServiceStub, wait_seconds=5) as stub:
            with acting_as(Identity("acme", "key-1", request_id="req-7")):
                await stub.LookupAnswer(cache_pb2.LookupAnswerRequest())
        line = await next_event(child, "looked_up")
    assert (line["service"], line["request_id"], line["tenant"], line["size"]) == ("demo", "req-7", "acme", 3)


async def test_prometheus_reads_calls_by_method_and_code(script: Path, free_port: int) -> None:
    async with process(script, DEMO_METRICS_LISTEN=f"127.0.0.1:{free_port}") as child:
        port = (await next_event(child, "serving"))["port"]
        async with connect(f"127.0.0.1:{port}", CacheServiceStub, wait_seconds=5) as stub:
            await stub.LookupAnswer(cache_pb2.LookupAnswerRequest())
        page = await asyncio.to_thread(
            lambda: urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=5).read().decode()
        )
    assert (
        'grpc_server_handled_total{grpc_code="OK",grpc_method="LookupAnswer",'
        'grpc_service="llmmesh.cache.v1.CacheService"} 1.0' in page
    )


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps the spans it receives."""

    def __init__(self) -> None:
        self.spans: asyncio.Queue[Any] = asyncio.Queue()

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put_nowait(span)
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_a_span_joins_the_callers_trace_when_a_collector_is_named(script: Path) -> None:
    collector, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with process(script, **environment) as child:
        room = (await next_event(child, "serving"))["port"]
        async with connect(f"127.0.0.1:{room}", CacheServiceStub, wait_seconds=5) as stub:
            parent = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),)
            await stub.LookupAnswer(cache_pb2.LookupAnswerRequest(), metadata=parent)
        span = await asyncio.wait_for(collector.spans.get(), 15)
        line = await next_event(child, "looked_up")
    await server.stop(0)
    assert span.trace_id.hex() == trace_id
    assert "LookupAnswer" in span.name
    assert line["trace_id"] == trace_id
