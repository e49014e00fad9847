"""Stopping in order: no new calls, and the ones under way end as they would have."""

from __future__ import annotations

import asyncio

import httpx

from llmmesh.gateway.v1 import gateway_pb2
from llmmesh.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from meshkit.client import connect
from meshkit.identity import Identity, acting_as
from tests.envoy.rooms import OpenAIRoom, SigningKey, billing_room, gateway_room
from tests.support.fix_envoy import StartEnvoy


async def test_a_drained_edge_finishes_its_streams_and_leaves_the_mesh_open(start_envoy: StartEnvoy) -> None:
    room, issuer = OpenAIRoom(), SigningKey()
    async with gateway_room(room) as gateway, billing_room(issuer) as billing:
        envoy = await start_envoy({"gateway": [gateway], "billing": [billing]})
        await envoy.healthy("gateway")
        await envoy.healthy("billing")
        body = {"do": "wait"}
        async with (
            httpx.AsyncClient(base_url=envoy.url, headers=issuer.bearer(), timeout=10) as http,
            httpx.AsyncClient(base_url=envoy.admin_url) as admin,
            http.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            chunks = answer.aiter_raw()
            assert await anext(chunks) == b"data: 1\n\n"
            for order in ("/healthcheck/fail", "/drain_listeners?inboundonly"):
                (await admin.post(order)).raise_for_status()
            await _closed(envoy.edge_port)
            async with connect(envoy.mesh_target, GatewayServiceStub, wait_seconds=5) as stub:
                with acting_as(Identity("acme", "key-1", frozenset({"developer"}))):
                    await stub.ListModels(gateway_pb2.ListModelsRequest())
            room.go_on.set()
            assert await anext(chunks) == b"data: 2\n\n"


async def _closed(port: int) -> None:
    """Return once nobody takes connections on a port."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.02)
