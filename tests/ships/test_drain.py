"""What a pod of Envoy does before it goes, tried on a real Envoy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody

from llmmesh.gateway.v1.openai_pb2 import CreateChatCompletionRequest
from llmmesh.gateway.v1.openai_pb2_grpc import OpenAIServiceStub
from meshkit.identity import Identity
from tests.envoy.rooms import OpenAIRoom, SigningKey, billing_room, gateway_room
from tests.support.fix_envoy import RunningEnvoy, running_envoy

DRAIN = Path(__file__).parents[2] / "deploy" / "k8s" / "llmmesh" / "files" / "drain.sh"


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[tuple[RunningEnvoy, dict[str, str]]]:
    """An edge of its own, to be drained, and a key it accepts."""
    issuer = SigningKey()
    async with (
        gateway_room(OpenAIRoom()) as gateway,
        billing_room(issuer) as billing,
        running_envoy({"gateway": [gateway], "billing": [billing]}, tmp_path) as envoy,
    ):
        await envoy.healthy("gateway")
        await envoy.healthy("billing")
        yield envoy, issuer.bearer()


@asynccontextmanager
async def draining(envoy: RunningEnvoy) -> AsyncIterator[asyncio.subprocess.Process]:
    """The script at work."""
    process = await asyncio.create_subprocess_exec(
        *("bash", str(DRAIN), "0", "60"),
        env={**os.environ, "ENVOY_ADMIN_PORT": str(envoy.admin_port)},
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended_within(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Whether a process ends in time."""
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def test_an_idle_envoy_goes_at_once(edge: tuple[RunningEnvoy, dict[str, str]]) -> None:
    envoy, _ = edge
    async with draining(envoy) as process, httpx.AsyncClient() as client:
        assert await ended_within(process, 10)
        assert process.returncode == 0
        ready = await client.get(f"http://127.0.0.1:{envoy.status_port}/ready")
        assert ready.status_code == 503


async def test_a_running_stream_is_waited_for(edge: tuple[RunningEnvoy, dict[str, str]]) -> None:
    envoy, key = edge
    async with (
        httpx.AsyncClient(base_url=envoy.url, headers=key, timeout=30) as client,
        client.stream("POST", "/v1/chat/completions", json={"do": "wait"}) as answer,
    ):
        pieces = answer.aiter_bytes()
        assert await anext(pieces) == b"data: 1\n\n"
        async with draining(envoy) as process:
            assert not await ended_within(process, 2.5)
            await answer.aclose()
            assert await ended_within(process, 10)


async def test_a_stream_between_services_is_waited_for(edge: tuple[RunningEnvoy, dict[str, str]]) -> None:
    envoy, _ = edge
    async with grpc.aio.insecure_channel(envoy.mesh_target) as channel:
        stub: Any = OpenAIServiceStub(channel)
        call = stub.CreateChatCompletion(
            CreateChatCompletionRequest(body=HttpBody(data=b'{"do": "wait"}')),
            metadata=Identity("acme", "key-1", frozenset({"developer"}), "request-1").to_metadata(),
            timeout=30,
        )
        assert (await call.read()).data == b"data: 1\n\n"
        async with draining(envoy) as process:
            assert not await ended_within(process, 2.5)
            call.cancel()
            assert await ended_within(process, 10)
