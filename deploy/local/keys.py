"""The database's first rows: schema, demo tenant, and the two keys a person is shown."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass

from deploy.local.settings import REPOSITORY, LocalSettings
from deploy.local.stores import DATABASE, database_url

TENANT = "demo"
BUDGET_MICROS = 1000 * 1_000_000
"""A thousand units of the default currency a month."""
BOOTSTRAP_SECONDS = 120


class BootstrapFailed(Exception):
    """The database could not be prepared; the message is what the step wrote."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Virtual keys of the demo tenant."""

    developer: str
    admin: str


def kept_keys(settings: LocalSettings) -> Keys | None:
    """The keys of an earlier start; None when there are none, or none that can be read."""
    try:
        return _keys(settings.tokens.read_bytes())
    except (FileNotFoundError, ValueError, KeyError):
        return None


async def create_database(settings: LocalSettings) -> None:
    """Make the mesh's database unless it is there."""
    import psycopg

    connection = await psycopg.AsyncConnection.connect(
        host=str(settings.postgres_socket.parent), user=DATABASE, dbname="postgres", autocommit=True, connect_timeout=5
    )
    async with connection:
        found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if await found.fetchone() is None:
            await connection.execute(f"CREATE DATABASE {DATABASE}")


async def bootstrap(settings: LocalSettings) -> Keys:
    """Migrate, and make tenant and keys when there are none; a repeat gives the same keys.

    Raises:
        BootstrapFailed: If the billing room's own step fails.
    """
    step = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.billing.bootstrap"),
        *("--database-url", database_url(settings)),
        *("--signing-key-file", str(settings.data / "signing-key.json")),
        *("--tenant", TENANT, "--budget", str(BUDGET_MICROS)),
        *("--tokens-file", str(settings.tokens)),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(step.communicate(), BOOTSTRAP_SECONDS)
    finally:
        if step.returncode is None:
            step.kill()
    if step.returncode:
        raise BootstrapFailed(errors.decode(errors="replace").strip() or output.decode(errors="replace").strip())
    return _keys(output)


def _keys(document: bytes) -> Keys:
    tokens = json.loads(document)
    return Keys(developer=tokens["developer"], admin=tokens["admin"])
