"""The runbook docs/runbooks/provider-outage.md, played: a provider dies and comes back, and no caller notices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.fix_mesh import Mesh, Tenant, eventually, mesh_between
from tests.support.scripted_provider import ScriptedProvider, scripted_provider

# Long enough to see it open on a busy machine; every other time is that of the answers themselves.
RUNBOOK_BREAKER = {
    "LLMMESH_ROUTER_BREAKER_OPEN_SECONDS": "5",
    "LLMMESH_ROUTER_BREAKER_SUCCESSES": "3",
    "LLMMESH_ROUTER_BREAKER_RETURN_PERCENTS": "[10, 50]",
    "LLMMESH_ROUTER_BREAKER_STAGE_SECONDS": "0",
}
OPEN, RETURNING, CLOSED = (f"BREAKER_STATE_{name}" for name in ("OPEN", "RETURNING", "CLOSED"))
_questions = count()


class MortalProvider:
    """A cloud that can die, and come back where it was."""

    def __init__(self, server: ScriptedProvider, life: AsyncExitStack) -> None:
        self.server = server
        self._life = life
        self._port = int(server.base_url.split(":")[2].split("/")[0])

    async def die(self) -> None:
        """Close every connection and take no more."""
        await self._life.aclose()

    async def come_back(self) -> None:
        """Listen again."""
        self.server = await self._life.enter_async_context(scripted_provider(port=self._port))


@pytest.fixture
async def first() -> AsyncIterator[MortalProvider]:
    """The cheaper cloud."""
    async with AsyncExitStack() as life:
        yield MortalProvider(await life.enter_async_context(scripted_provider()), life)


@pytest.fixture
async def mesh(tmp_path: Path, first: MortalProvider) -> AsyncIterator[Mesh]:
    """A mesh of this test's own, whose breakers are as those of production, but quicker."""
    async with (
        scripted_provider() as second,
        mesh_between(tmp_path, first.server, second, LLMMESH_LOCAL_MODELS="none", **RUNBOOK_BREAKER) as running,
    ):
        yield running


async def answered_by(tenant: Tenant) -> str:
    """Who answers a question never asked before; any error fails the test."""
    answer = await tenant.chat(f"Question {next(_questions)}: who is there?")
    assert answer.status_code == 200, answer.text
    return answer.headers["x-llmmesh-provider"]


async def seen_of_first(mesh: Mesh) -> dict[str, Any]:
    """What an operator sees of the cheaper cloud."""
    answer = await mesh.http.get("/v1/providers", headers=mesh.admin)
    states = answer.raise_for_status().json()["providers"]
    return next(state for state in states if state["deployment"]["name"] == "first/scripted")


async def test_a_provider_dies_and_comes_back_and_no_caller_notices(mesh: Mesh, first: MortalProvider) -> None:
    tenant = await mesh.tenant()
    assert [await answered_by(tenant) for _ in range(2)] == ["first"] * 2

    await first.die()
    assert [await answered_by(tenant) for _ in range(3)] == ["second"] * 3
    opened = await seen_of_first(mesh)
    assert (opened["breaker"], opened["health"]) == (OPEN, "PROVIDER_HEALTH_UNAVAILABLE")
    assert opened.get("share_percent", 0) == 0
    assert [await answered_by(tenant) for _ in range(10)] == ["second"] * 10
    left_alone = await seen_of_first(mesh)
    assert left_alone["figures"]["requests"] == opened["figures"]["requests"] == "5", "two answers, three failures"

    await first.come_back()

    async def returning() -> bool:
        await answered_by(tenant)
        return bool((await seen_of_first(mesh))["breaker"] == RETURNING)

    await eventually(returning)
    assert first.server.counters.requests == 3, "as many probes as it takes to close"

    answers: dict[int, list[str]] = {10: [], 50: [], 100: []}
    while len(answers[100]) < 10:
        share = (await seen_of_first(mesh))["share_percent"]
        answers[share].append(await answered_by(tenant))
    assert [(share, len(by), by.count("first")) for share, by in answers.items()] == [
        (10, 30, 3),
        (50, 6, 3),
        (100, 10, 10),
    ]
    assert (await seen_of_first(mesh))["breaker"] == CLOSED
