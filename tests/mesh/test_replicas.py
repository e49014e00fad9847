"""Two gateways behind one Envoy: both work, and one is enough."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.fix_mesh import Mesh, eventually, running_mesh

REQUESTS = 12


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with running_mesh(tmp_path, LLMMESH_LOCAL_MODELS="none", LLMMESH_GATEWAYS="2") as mesh:
        yield mesh


async def answered(mesh: Mesh) -> dict[str, int]:
    """How many requests Envoy gave to each gateway."""
    stats = (await mesh.http.get(f"{mesh.settings['LLMMESH_ENVOY_ADMIN_URL']}/clusters?format=json")).json()
    hosts = next(each["host_statuses"] for each in stats["cluster_statuses"] if each["name"] == "gateway")
    return {
        str(host["address"]["socket_address"]["port_value"]): int(counter.get("value", 0))
        for host in hosts
        for counter in host["stats"]
        if counter["name"] == "rq_total"
    }


async def ask(mesh: Mesh) -> httpx.Response:
    return await mesh.http.get("/v1/models", headers=mesh.admin)


async def test_both_are_asked_and_when_one_is_killed_the_other_answers(pair: Mesh) -> None:
    async def both_asked() -> bool:
        assert (await ask(pair)).status_code == 200
        return all((await answered(pair)).values())

    await eventually(both_asked)
    before = pair.pids()
    pair.kill("gateway-2")
    statuses = [(await ask(pair)).status_code for _ in range(REQUESTS)]
    assert statuses.count(200) == REQUESTS
    await eventually(lambda: _replaced(pair, before["gateway-2"]))


async def _replaced(mesh: Mesh, pid: int) -> bool:
    return mesh.pids().get("gateway-2", pid) != pid
