"""With a collector named, one trace runs from the edge into the room."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import httpx
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from deploy.envoy.topology import Address
from tests.envoy.rooms import SigningKey, billing_room, gateway_room
from tests.support.fix_envoy import running_envoy


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the trace ids of the spans it receives."""

    def __init__(self) -> None:
        self.traces: asyncio.Queue[str] = asyncio.Queue()

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.traces.put_nowait(span.trace_id.hex())
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_the_room_gets_the_trace_that_the_edge_reports(tmp_path: Path) -> None:
    issuer, collector, server = SigningKey(), Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    address = Address("127.0.0.1", server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    async with gateway_room() as gateway, billing_room(issuer) as billing:
        rooms = {"gateway": [gateway], "billing": [billing]}
        async with running_envoy(rooms, tmp_path, address) as envoy:
            await envoy.healthy("gateway")
            await envoy.healthy("billing")
            async with httpx.AsyncClient(base_url=envoy.url, headers=issuer.bearer()) as http:
                answer = await http.post("/v1/chat/completions", json={"do": "echo"})
            trace = answer.json()["metadata"]["traceparent"].split("-")[1]
            async with asyncio.timeout(20):
                while await collector.traces.get() != trace:
                    pass
    await server.stop(0)
