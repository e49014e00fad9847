"""Listens to what Postgres announces: one connection that is asked now and then whether it is still alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from services.billing.database.engine import cut_off, translated

CHANNEL = "llmmesh_billing"
"""Triggers announce here: "tenant ID", "key ID", "keys TENANT" when several change at once, or "prices"."""


class Listener:
    """A connection that hears every announcement made after it was opened."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, ping_seconds: float, answer_seconds: float) -> None:
        self._connection = connection
        self._ping_seconds = ping_seconds
        self._answer_seconds = answer_seconds

    async def announcements(self) -> AsyncIterator[str]:
        """Each announcement as it is made. Never ends by itself.

        Raises:
            DependencyUnavailable: If the connection is lost, or the server does not answer a ping in time.
        """
        with translated():
            while True:
                async for notice in self._connection.notifies(timeout=self._ping_seconds):
                    yield notice.payload
                with cut_off(self._connection, self._answer_seconds):
                    await self._connection.execute("SELECT 1")


@asynccontextmanager
async def listening(address: str, *, ping_seconds: float, answer_seconds: float) -> AsyncIterator[Listener]:
    """Listen for the block, at an address in libpq's words.

    Raises:
        DependencyUnavailable: If the database cannot be reached in time.
    """
    with translated():
        async with asyncio.timeout(answer_seconds):
            connection = await psycopg.AsyncConnection.connect(address, autocommit=True)
        try:
            with cut_off(connection, answer_seconds):
                await connection.execute(f"LISTEN {CHANNEL}")
            yield Listener(connection, ping_seconds=ping_seconds, answer_seconds=answer_seconds)
        finally:
            await connection.close()
