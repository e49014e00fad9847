"""`llmmesh-cache forget-reports`: what running cache services know of a tenant's reports after it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from llmmesh.cache.v1 import cache_pb2
from meshkit.identity import Identity, acting_as
from services.cache.command import main
from tests.support.waiting import until


@pytest.fixture
def tenant() -> Identity:
    """A tenant no other test uses."""
    return Identity(tenant_id=f"t-{uuid4()}", key_id="k1", roles=frozenset({"developer"}))


async def report(stub: Any, tenant: Identity, verdict: str) -> None:
    """Report a semantic hit on an entry that is gone meanwhile."""
    use = cache_pb2.CacheUse(
        tenant_id=tenant.tenant_id,
        model="small",
        outcome="semantic",
        request_id=str(uuid4()),
        answered_request_id="r1",
        entry_id=f"small:{'0' * 48}",
    )
    await stub.RecordUses(cache_pb2.RecordUsesRequest(uses=[use]))
    await stub.ReportHit(cache_pb2.ReportHitRequest(request_id=use.request_id, verdict=verdict))


async def bound(stub: Any) -> Any:
    return await stub.GetErrorBound(cache_pb2.GetErrorBoundRequest())


async def knows(stub: Any, right: int, wrong: int) -> bool:
    shown = await bound(stub)
    return bool((shown.reported_right, shown.reported_wrong) == (right, wrong))


async def forget_reports(tenant: Identity, redis_url: str) -> None:
    await asyncio.to_thread(main, ["forget-reports", "--tenant", tenant.tenant_id, "--redis", redis_url])


async def test_a_tenants_bound_begins_anew_in_every_replica(
    configure: Any, serve: Any, tenant: Identity, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    soon = {"evidence_seconds": 0.05}
    async with serve(configure(**soon)) as one, serve(configure(**soon)) as other:
        with acting_as(tenant):
            before = await bound(one)
            for verdict in ("right", "wrong", "wrong"):
                await report(one, tenant, verdict)
            await until(partial(knows, other, 1, 2))
            await forget_reports(tenant, redis_url)
            for replica in (one, other):
                await until(partial(knows, replica, 0, 0))
                assert await bound(replica) == before
            await report(other, tenant, "wrong")
            for replica in (one, other):
                await until(partial(knows, replica, 0, 1))
    assert "1 right reports, 2 wrong ones, 1 disputed entries" in capsys.readouterr().out


async def test_reports_of_other_tenants_stay(stub: Any, tenant: Identity, redis_url: str) -> None:
    rival = Identity(tenant_id=f"rival-{tenant.tenant_id}", roles=frozenset({"developer"}))
    with acting_as(tenant):
        await report(stub, tenant, "wrong")
    with pytest.raises(SystemExit, match="Redis holds no reports"):
        await forget_reports(rival, redis_url)
    with acting_as(tenant):
        assert await knows(stub, 0, 1)
    await forget_reports(tenant, redis_url)


async def test_a_redis_that_is_away_ends_the_command_with_one_line(tenant: Identity, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"llmmesh-cache: .* is away"):
        await forget_reports(tenant, f"unix://{tmp_path}/none.sock")
