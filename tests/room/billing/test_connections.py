"""Callers who leave, whenever they leave, give their connection to Postgres back and leave nothing running there."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import LiteralString

import psycopg
import pytest
from sqlalchemy import text

from meshkit.errors import DependencyUnavailable
from services.billing.database.engine import Database
from services.billing.database.wire import Wire
from tests.room.billing.conftest import awaited
from tests.support.waiting import until

STEPS = 40
"""Turns of the event loop after which a statement has long been answered."""
PID = text("SELECT pg_backend_pid() AS pid")
SLOW: LiteralString = "SELECT pg_sleep(60)"
LOCKED: LiteralString = "SELECT pg_advisory_lock(1)"
WORKING = "SELECT 1 FROM pg_stat_activity WHERE query = %s AND state = 'active'"


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


async def over_the_pool(database: Database, statement: LiteralString) -> None:
    await database.fetch("stuck", text(statement))


async def over_a_wire(database: Database, statement: LiteralString) -> None:
    await Wire(database, seconds=1).fetch("stuck", statement)


@asynccontextmanager
async def impatient(books: str, **limits: float) -> AsyncIterator[tuple[Database, psycopg.Connection]]:
    """A database whose callers wait for a second, and a connection that sees what goes on there."""
    database = Database(books, seconds=1, connections=1, **limits)
    database.open()
    with psycopg.connect(database.address, autocommit=True) as other:
        yield database, other
    await database.close()


@pytest.mark.parametrize("ask", [over_the_pool, over_a_wire])
async def test_postgres_gives_up_what_nobody_waits_for_any_more(
    ask: Callable[[Database, LiteralString], Awaitable[None]], fresh_books: str
) -> None:
    async with impatient(fresh_books, statement_seconds=1) as (database, other):

        def idle() -> bool:
            return not other.execute(WORKING, [SLOW]).fetchall()

        with pytest.raises(DependencyUnavailable):
            await ask(database, SLOW)
        await until(lambda: asyncio.to_thread(idle))


@pytest.mark.parametrize("ask", [over_the_pool, over_a_wire])
async def test_nobody_waits_for_a_lock_when_its_call_has_long_ended(
    ask: Callable[[Database, LiteralString], Awaitable[None]], fresh_books: str
) -> None:
    async with impatient(fresh_books, lock_seconds=1) as (database, other):
        other.execute(LOCKED)
        with pytest.raises(DependencyUnavailable):
            await ask(database, LOCKED)
        await until(lambda: asyncio.to_thread(lambda: not awaited(other)))


@pytest.mark.parametrize("limit", ["statement_timeout", "lock_timeout"])
async def test_what_postgres_gives_up_is_told_as_the_database_being_away(limit: str, fresh_books: str) -> None:
    database = Database(fresh_books, seconds=20, connections=1)
    database.open()
    with psycopg.connect(database.address, autocommit=True) as other:
        other.execute(LOCKED)
        with pytest.raises(DependencyUnavailable):
            await given_up(database, limit)
    await database.close()


async def given_up(database: Database, limit: str) -> None:
    """Wait for a lock for a millisecond."""
    async with database.transaction("stuck") as connection:
        await connection.execute(text(f"SET LOCAL {limit} = 1"))
        await connection.execute(text(LOCKED))
