"""Deleted tenants are forgotten once each, and again until it worked."""

from __future__ import annotations

import asyncio

from llmmesh.tenant.v1 import tenant_pb2
from services.cache.departures import Departures
from services.cache.purging import Forgotten
from services.cache.vectorstores.port import Selection


class Levels:
    """Both levels, one of which may be away a few times."""

    def __init__(self, away: int = 0) -> None:
        self.asked: list[str] = []
        self._away = away

    async def forget(self, selection: Selection) -> Forgotten:
        assert selection == Selection(selection.tenant_id)
        self.asked.append(selection.tenant_id)
        self._away -= 1
        return Forgotten(1, 1, ["semantic"] if self._away >= 0 else [])


def deletion(tenant_id: str, seconds: int = 1) -> tenant_pb2.TenantDeletion:
    message = tenant_pb2.TenantDeletion(tenant_id=tenant_id)
    message.delete_time.FromSeconds(seconds)
    return message


async def seen(levels: Levels, count: int) -> None:
    async with asyncio.timeout(10):
        while len(levels.asked) < count:  # noqa: ASYNC110 - the levels are the only witness
            await asyncio.sleep(0)


async def test_a_deletion_that_is_told_again_is_done_already() -> None:
    levels = Levels()
    leaving = Departures(levels.forget)
    running = asyncio.create_task(leaving.run())
    leaving.take([deletion("a"), deletion("b")])
    await seen(levels, 2)
    leaving.take([deletion("a"), deletion("b"), deletion("c")])
    await seen(levels, 3)
    leaving.take([deletion("a", seconds=2)])
    await seen(levels, 4)
    running.cancel()
    assert levels.asked == ["a", "b", "c", "a"]


async def test_a_level_that_is_away_is_asked_again() -> None:
    levels = Levels(away=2)
    leaving = Departures(levels.forget, retry_seconds=0)
    running = asyncio.create_task(leaving.run())
    leaving.take([deletion("a")])
    await seen(levels, 3)
    leaving.take([deletion("a"), deletion("b")])
    await seen(levels, 4)
    running.cancel()
    assert levels.asked == ["a", "a", "a", "b"]
