"""Brings a database up to date; harmless to repeat and to run from several processes at once."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.billing.database.engine import translated

MIGRATING = 0x6C6C6D6D
"""Advisory lock: processes that start together migrate one after the other."""
_UNHURRIED = text("SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)")


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Run the migrations that are missing, all in one transaction, however long they take.

    Raises:
        DependencyUnavailable: If the database is away.
    """
    with translated():
        async with engine.begin() as connection:
            await connection.execute(_UNHURRIED)
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATING})
            await connection.run_sync(_upgrade, revision)


def alembic_config(connection: Connection) -> Config:
    """Alembic's settings for commands over `connection`."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection, revision: str) -> None:
    command.upgrade(alembic_config(connection), revision)
