"""Any one service dies under traffic: callers see what the architecture promises, and everything comes back.

Also the stores, refused and frozen. Each test ends with the mesh whole again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count

import httpx
import pytest

from meshkit.probe import serving
from tests.support.fix_mesh import Mesh, Tenant, eventually
from tests.support.scripted_provider import ScriptedProvider

_questions = count()


async def ask_anew(tenant: Tenant, **more: object) -> httpx.Response:
    """Ask what was never asked before."""
    return await tenant.chat(f"Question number {next(_questions)}: why do foxes number {os.getpid()} things?", **more)


async def works(tenant: Tenant) -> bool:
    """Whether a new question is answered with every part of the mesh in place."""
    answer = await ask_anew(tenant)
    return answer.status_code == 200 and answer.headers["x-llmmesh-cache"] == "miss"


async def whole(tenant: Tenant) -> bool:
    """Whether all works and will go on to.

    Billing, and Envoy after it, say up to a second late that the database is away, when it may be back already.
    """
    billing = tenant.mesh.settings["LLMMESH_BILLING_ADDRESS"]
    if not (await works(tenant) and await asyncio.to_thread(serving, billing)):
        return False
    answer = await tenant.mesh.http.get(f"/v1/tenants/{tenant.id}", headers=tenant.mesh.admin)
    return answer.status_code == 200


@asynccontextmanager
async def stopped(tenant: Tenant, service: str) -> AsyncIterator[None]:
    """A service that is killed and stays away for the block; afterwards the mesh is whole again."""
    await asyncio.to_thread(tenant.mesh.command, "stop", service)
    try:
        yield
    finally:
        await asyncio.to_thread(tenant.mesh.command, "start", service)
        await eventually(lambda: whole(tenant), 60)


@contextmanager
def frozen(mesh: Mesh, service: str) -> Iterator[None]:
    """A process that takes connections and never answers."""
    pid = mesh.pids()[service]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# What a caller may see while a service is dying and coming back.
ALLOWED = {
    "cache": {200},
    "router": {200, 503},
    "guard": {200, 503},
    "billing": {200, 503},
    "inference": {200},
    "gateway": {200, 503},
}


@pytest.mark.parametrize("service", ALLOWED)
async def test_a_service_killed_under_traffic_is_survived_and_comes_back(tenant: Tenant, service: str) -> None:
    seen: Counter[int] = Counter()
    done = asyncio.Event()

    async def traffic() -> None:
        while not done.is_set():
            seen[(await ask_anew(tenant)).status_code] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(traffic())
        before = tenant.mesh.pids()[service]
        tenant.mesh.kill(service)

        async def replaced() -> bool:
            return (await asyncio.to_thread(tenant.mesh.pids)).get(service, before) != before

        await eventually(replaced, 60)
        await eventually(lambda: whole(tenant), 60)
        done.set()
    assert set(seen) <= ALLOWED[service], seen
    assert seen[200] > 0


async def test_without_the_cache_answers_come_from_providers_and_say_so(tenant: Tenant) -> None:
    async with stopped(tenant, "cache"):
        answer = await ask_anew(tenant)
        assert (answer.status_code, answer.headers["x-llmmesh-cache"]) == (200, "unavailable")


async def test_without_redis_answers_come_from_providers_and_say_so(tenant: Tenant) -> None:
    async with stopped(tenant, "redis"):
        answer = await ask_anew(tenant)
        assert (answer.status_code, answer.headers["x-llmmesh-cache"]) == (200, "unavailable")


async def test_a_frozen_redis_costs_a_deadline_and_no_answer(tenant: Tenant) -> None:
    with frozen(tenant.mesh, "redis"):
        answers = [await ask_anew(tenant) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert answers[-1].headers["x-llmmesh-cache"] == "unavailable"
    assert answers[-1].elapsed.total_seconds() < 1
    await eventually(lambda: works(tenant), 60)


async def test_a_frozen_redis_takes_nothing_from_the_semantic_level(tenant: Tenant, real_model: str) -> None:
    assert real_model  # while the chat model loads embeddings miss their deadline
    wordings = iter(
        [
            "How can I defrost a freezer?",
            "How should I defrost a freezer?",
            "What is the way to defrost a freezer?",
            "What's the best way to defrost a freezer?",
            "How can a freezer be defrosted?",
        ]
    )
    await tenant.finds_in_other_words("How do I defrost a freezer?", wordings)
    with frozen(tenant.mesh, "redis"):
        assert await tenant.cache_of(next(wordings)) == "semantic"
    await eventually(lambda: works(tenant), 60)


async def test_without_the_guard_nothing_unchecked_is_answered(tenant: Tenant) -> None:
    async with stopped(tenant, "guard"):
        answer = await ask_anew(tenant)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "guard_unavailable"
        assert int(answer.headers["retry-after"]) > 0


async def test_a_tenant_may_choose_to_go_on_without_the_guard_and_the_audit_says_so(mesh: Mesh, tenant: Tenant) -> None:
    daring = await mesh.tenant(guard_fail_open=True)
    await eventually(lambda: works(daring))
    async with stopped(tenant, "guard"):
        answer = await ask_anew(daring)
        assert answer.status_code == 200

    async def unchecked() -> bool:
        events = (await daring.admin_get("/audit")).get("events", [])
        return any(not event.get("guard_policy_version") for event in events)

    await eventually(unchecked)


@pytest.mark.parametrize("part", ["billing", "postgres"])
async def test_without_billing_spending_is_refused_with_503_and_cached_answers_go_on(tenant: Tenant, part: str) -> None:
    async def cached() -> bool:
        return (await tenant.chat("Remember the fox.")).headers.get("x-llmmesh-cache") == "exact"

    await eventually(cached)
    async with stopped(tenant, part):
        refused = await ask_anew(tenant)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "billing_unavailable"
        await eventually(cached)


async def test_without_the_router_the_caller_is_told_to_retry_and_nothing_stays_reserved(tenant: Tenant) -> None:
    async with stopped(tenant, "router"):
        answer = await ask_anew(tenant)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0

    async def released() -> bool:
        budget = (await tenant.admin_get("/budget"))["budget"]
        return int(budget.get("reserved_micros", "0")) == 0

    await eventually(released)


async def test_without_inference_other_providers_go_on(tenant: Tenant) -> None:
    async with stopped(tenant, "inference"):
        answer = await ask_anew(tenant)
        assert answer.status_code == 200


async def test_what_was_used_while_billing_died_is_in_the_ledger_afterwards(
    tenant: Tenant, first: ScriptedProvider
) -> None:
    first.set(tokens_per_second=20, reply_tokens=30)
    asking = asyncio.create_task(ask_anew(tenant, stream=True))
    await first.until(lambda now: now.open_streams == 1)
    async with stopped(tenant, "billing"):
        answer = await asking
        first.reset()
    assert answer.status_code == 200

    async def booked() -> bool:
        return any(row["usage"].get("output_tokens") == 30 for row in await tenant.usage(rows=1))

    await eventually(booked)
