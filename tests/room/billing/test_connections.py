"""Connections to Postgres are given back by callers who leave, whenever they leave."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from services.billing.database.engine import Database

STEPS = 40
"""Turns of the event loop after which a statement has long been answered."""
PID = text("SELECT pg_backend_pid() AS pid")


async def fetched(database: Database) -> object:
    return (await database.fetch("pid", PID))[0]["pid"]


async def in_a_transaction(database: Database) -> object:
    async with database.transaction("pid") as connection:
        return (await connection.execute(PID)).scalar_one()


@pytest.mark.parametrize("use", [fetched, in_a_transaction])
async def test_no_caller_who_leaves_takes_a_connection_along(
    use: Callable[[Database], Awaitable[object]], fresh_books: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a busy loop: the driver then lets others run even in statements that need no answer of the server.
    monkeypatch.setattr("psycopg.waiting.MAX_BUSY_TIME", 0)
    database = Database(fresh_books, seconds=20, connections=1)
    database.open()
    gc.collect()
    with warnings.catch_warnings(record=True) as said:
        for steps in range(STEPS):
            await use(database)
            await left(asyncio.ensure_future(use(database)), steps)
        await database.close()
        gc.collect()
    assert [str(warning.message) for warning in said] == []


async def left(call: asyncio.Future[object], steps: int) -> None:
    """Go away from a call after so many turns of the loop."""
    for _ in range(steps):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
