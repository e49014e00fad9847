"""A connection for the few statements that every request waits for.

They skip the pool and SQLAlchemy, which would cost them three quarters of their CPU time, and are planned once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg.rows import DictRow, dict_row

from meshkit.deadline import time_left
from meshkit.errors import DependencyUnavailable
from services.billing.database.engine import Database, cut_off, translated
from services.billing.metrics import STATEMENT_SECONDS

_LIMITS = "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false)"


class Wire:
    """One connection, opened when it is needed, for one statement at a time."""

    def __init__(self, database: Database, *, seconds: float) -> None:
        self._database = database
        self._seconds = seconds
        self._connection: psycopg.AsyncConnection[DictRow] | None = None

    async def fetch(
        self, operation: str, *statements: LiteralString, afterwards: LiteralString = "", **parameters: Any
    ) -> list[DictRow]:
        """Run statements that are harmless to repeat in a transaction of their own; returns the rows of the last.

        All go out at once, so they cost one round trip; each sees what was committed while the one before it waited.
        `afterwards` goes with them and is a transaction by itself, begun when theirs has ended. All are run a second
        time when the connection turns out to be dead, as it is after a restart of the server.

        Raises:
            DependencyUnavailable: If the database is away or takes too long.
        """
        until = time.monotonic() + time_left(at_most=self._seconds)
        used_before = self._connection is not None
        with STATEMENT_SECONDS.labels(operation).time():
            try:
                return await self._fetch_once(statements, afterwards, parameters, until)
            except DependencyUnavailable:
                if not used_before or time.monotonic() >= until:
                    raise
            return await self._fetch_once(statements, afterwards, parameters, until)

    async def close(self) -> None:
        """Close the connection; the next statement opens another."""
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()

    async def _fetch_once(
        self,
        statements: Sequence[LiteralString],
        afterwards: LiteralString,
        parameters: Mapping[str, Any],
        until: float,
    ) -> list[DictRow]:
        try:
            with translated():
                connection = self._connection or await self._connect(until)
                with cut_off(connection, until - time.monotonic()):
                    # A pipeline is one transaction by itself; BEGIN and COMMIT would double what it costs.
                    async with connection.pipeline() as pipeline:
                        cursors = [await connection.execute(statement, parameters) for statement in statements]
                        if afterwards:
                            await pipeline.sync()
                            await connection.execute(afterwards)
                    return await cursors[-1].fetchall()
        except BaseException:
            # Whatever it was, the connection's state is unknown now.
            await self.close()
            raise

    async def _connect(self, until: float) -> psycopg.AsyncConnection[DictRow]:
        self._database.check_open()
        async with asyncio.timeout(until - time.monotonic()):
            self._connection = await psycopg.AsyncConnection.connect(
                self._database.address, autocommit=True, row_factory=dict_row
            )
            # Plans are kept: one that reads a table through, best while it is small, would be kept when it is large.
            await self._connection.execute("SET enable_seqscan = off")
            # Compiling a statement takes longer than any of them.
            await self._connection.execute("SET jit = off")
            await self._connection.execute(_LIMITS, self._database.limits(self._seconds))
        return self._connection
