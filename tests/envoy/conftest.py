"""One edge in front of two small rooms, shared by the tests that only read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.envoy.rooms import OpenAIRoom, SigningKey, billing_room, gateway_room
from tests.support.fix_envoy import RunningEnvoy, running_envoy
from tests.support.gateway_room import eventually

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="session")
def issuer() -> SigningKey:
    """The key every accepted token is signed with."""
    return SigningKey()


@pytest.fixture(scope="session")
def openai_room() -> OpenAIRoom:
    """The OpenAI face behind the edge."""
    return OpenAIRoom()


@pytest.fixture(scope="session")
async def started_edge(
    issuer: SigningKey, openai_room: OpenAIRoom, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningEnvoy]:
    """An Envoy that already knows the signing key."""
    async with gateway_room(openai_room) as gateway, billing_room(issuer) as billing:
        rooms = {"gateway": [gateway], "billing": [billing]}
        async with running_envoy(rooms, tmp_path_factory.mktemp("edge")) as envoy:
            await _rooms_healthy(envoy)
            await admitted(envoy, issuer)
            yield envoy


@pytest.fixture
async def edge(started_edge: RunningEnvoy) -> RunningEnvoy:
    """The edge that all tests share. The rooms behind it answer no health checks while a test without a loop runs."""
    await _rooms_healthy(started_edge)
    return started_edge


async def admitted(envoy: RunningEnvoy, issuer: SigningKey) -> None:
    """Return once the edge has fetched the keys it verifies tokens with, and answers."""
    async with httpx.AsyncClient(base_url=envoy.url) as client:

        async def answers() -> bool:
            return (await client.post(CHAT, headers=issuer.bearer(), json={"do": "echo"})).is_success

        await eventually(answers)


@pytest.fixture
async def http(edge: RunningEnvoy) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the edge without a key."""
    async with httpx.AsyncClient(base_url=edge.url, timeout=20) as client:
        yield client


async def _rooms_healthy(envoy: RunningEnvoy) -> None:
    for room in ("gateway", "billing"):
        await envoy.healthy(room)
