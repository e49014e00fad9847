"""Connections to Postgres that never outstay their deadline, however the server fails."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import psycopg
from sqlalchemy import Executable, make_url, text
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from meshkit.deadline import time_left
from meshkit.errors import DependencyUnavailable
from services.billing.metrics import STATEMENT_SECONDS

Rows = Sequence[RowMapping]


class Database:
    """A bounded pool. Until `open` is called every use is refused: the schema may not be there yet."""

    def __init__(
        self, url: str, *, seconds: float, connections: int, statement_seconds: float = 30.0, lock_seconds: float = 5.0
    ) -> None:
        address = make_url(url)
        self.address = address.set(drivername="postgresql").render_as_string(hide_password=False)
        """The same place in libpq's words; holds the password."""
        self._seconds = seconds
        self._statement_seconds = statement_seconds
        self._lock_seconds = max(seconds, lock_seconds)
        statement_timeout, lock_timeout = self.limits(seconds)
        # The server takes statements over large tables for long ones, and compiling them for seconds of gain; a plan
        # that fits any period of a report fits none.
        options = f"{address.query.get('options', '')} -c jit=off -c plan_cache_mode=force_custom_plan"
        options += f" -c statement_timeout={statement_timeout} -c lock_timeout={lock_timeout}"
        self.engine: AsyncEngine = create_async_engine(
            address,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=seconds,
            pool_use_lifo=True,
            connect_args={"options": options},
        )
        self._open = False
        self._on_their_way_back: set[asyncio.Task[None]] = set()

    def limits(self, seconds: float) -> tuple[str, str]:
        """`statement_timeout` and `lock_timeout` of a connection whose statements are waited for so long.

        A caller who is cut off leaves its statement behind: the server hears of that only when it has an answer.
        """
        return _milliseconds(max(seconds, self._statement_seconds)), _milliseconds(self._lock_seconds)

    def open(self) -> None:
        """Let statements in: the schema is up to date."""
        self._open = True

    def check_open(self) -> None:
        """Refuse while the schema may not be there.

        Raises:
            DependencyUnavailable: Until `open` is called.
        """
        if not self._open:
            raise DependencyUnavailable("The database is not ready yet: retry in a moment.", retry_after_seconds=1)

    async def close(self) -> None:
        """Close every connection, those that are being given back too."""
        if self._on_their_way_back:
            await asyncio.wait(self._on_their_way_back, timeout=self._seconds)
        await self.engine.dispose()

    async def fetch(self, operation: str, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Rows:
        """Run one statement that is harmless to repeat, in a transaction of its own.

        It is run a second time when the pooled connection turns out to be dead, as all are after a restart of the
        server.

        Raises:
            DependencyUnavailable: If the database is away or takes too long.
        """
        seconds = time_left(at_most=self._seconds)
        started = time.monotonic()
        try:
            with STATEMENT_SECONDS.labels(operation).time():
                return await self._fetch_once(statement, parameters, seconds)
        except ConnectionStale:
            return await self._fetch_once(statement, parameters, seconds - (time.monotonic() - started))

    @asynccontextmanager
    async def transaction(self, operation: str) -> AsyncIterator[AsyncConnection]:
        """Run the block in one transaction, committed at its end.

        Raises:
            DependencyUnavailable: If the database is away or takes too long; nothing was then promised.
        """
        with STATEMENT_SECONDS.labels(operation).time():
            seconds = time_left(at_most=self._seconds)
            async with self._borrowed(seconds) as connection, connection.begin():
                yield connection

    async def answers(self) -> bool:
        """Whether the database answers within the deadline."""
        await self.fetch("ping", text("SELECT 1"))
        return True

    async def _fetch_once(self, statement: Executable, parameters: Mapping[str, Any] | None, seconds: float) -> Rows:
        async with self._borrowed(seconds) as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            result = await connection.execute(statement, parameters)
            return result.mappings().all() if result.returns_rows else ()

    @asynccontextmanager
    async def _borrowed(self, seconds: float) -> AsyncIterator[AsyncConnection]:
        self.check_open()
        until = time.monotonic() + seconds
        with translated():
            async with asyncio.timeout(seconds):
                # Options are set below, not by the engine: a caller who leaves meanwhile would lose the connection.
                connection = await self.engine.connect()
            try:
                with cut_off(await driver(connection), until - time.monotonic()):
                    yield connection
            finally:
                await asyncio.shield(self._given_back(connection))

    def _given_back(self, connection: AsyncConnection) -> asyncio.Task[None]:
        """A caller who leaves meanwhile must not take the connection along."""
        task = asyncio.create_task(connection.close())
        self._on_their_way_back.add(task)
        task.add_done_callback(self._on_their_way_back.discard)
        return task


def _milliseconds(seconds: float) -> str:
    return f"{math.ceil(seconds * 1000)}ms"


class ConnectionStale(DependencyUnavailable):
    """The pooled connection was dead; a new one may work."""


_AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    # What a standby says that has just taken our connections over.
    psycopg.errors.ReadOnlySqlTransaction,
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's ways of saying that the database is away into ours; its text stays inside."""
    message = "The database is away: retry in a moment."
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, _AWAY):
            raise
        kind = ConnectionStale if error.connection_invalidated else DependencyUnavailable
        raise kind(message, retry_after_seconds=1) from error
    except (*_AWAY, PoolTimeout, TimeoutError, OSError) as error:
        raise DependencyUnavailable(message, retry_after_seconds=1) from error


async def driver(connection: AsyncConnection) -> psycopg.AsyncConnection[Any]:
    """The psycopg connection below."""
    raw = await connection.get_raw_connection()
    return cast("psycopg.AsyncConnection[Any]", raw.driver_connection)


@contextmanager
def cut_off(connection: psycopg.AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Cut the connection if the block takes longer than `seconds`: what it awaits then fails at once.

    Cancelling is no way out: the driver then asks the server to cancel and waits for its answer, which a frozen
    server never gives.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _shut_down, connection)
    try:
        yield
    finally:
        timer.cancel()


def _shut_down(connection: psycopg.AsyncConnection[Any]) -> None:
    if connection.closed:
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
