"""Billing, run for real on a real Postgres, and the stubs to call it by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from services.billing.audit.command import main
from services.billing.config import BillingConfig
from services.billing.migrations.upgrade import upgrade
from tests.room.billing.audit_log import Log, Verify
from tests.support.billing_room import PRICES, Room, billing_room
from tests.support.fix_postgres import Postgres

Configure = Callable[..., BillingConfig]


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """Name of a database with the schema in it, to copy."""
    name = postgres.create_database()
    asyncio.run(_migrate(postgres.url(name)))
    return name


@pytest.fixture(scope="session")
def configure(tmp_path_factory: pytest.TempPathFactory) -> Configure:
    """Makes settings of a room; all rooms share prices and signing key."""
    folder = tmp_path_factory.mktemp("billing")
    prices = folder / "prices.yaml"
    prices.write_text(PRICES)

    def make(database_url: str, **settings: object) -> BillingConfig:
        defaults: dict[str, object] = {
            "listen": "127.0.0.1:0",
            "metrics_listen": "",
            "drain_seconds": 2,
            # Tests share the machine: only those about speed of failure set less.
            "database_seconds": 20,
            "signing_key_file": folder / "signing-key.json",
            "prices": prices,
        }
        return BillingConfig.model_validate({"database_url": database_url, **defaults, **settings})

    return make


@pytest.fixture(scope="module")
def books(postgres: Postgres, migrated: str) -> Iterator[str]:
    """URL of a database for the tests of one module."""
    name = postgres.create_database(migrated)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
async def room(configure: Configure, books: str) -> AsyncIterator[Room]:
    """One running room for the tests of a module: each test makes tenants of its own."""
    async with billing_room(configure(books)) as room:
        yield room


@pytest.fixture
def fresh_books(postgres: Postgres, migrated: str) -> Iterator[str]:
    """URL of a database for one test."""
    name = postgres.create_database(migrated)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def price_file(tmp_path: Path) -> Path:
    """A price file of one's own."""
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    return path


@pytest.fixture
def log(fresh_books: str, tmp_path: Path) -> Log:
    """The audit log of a tenant."""
    log = Log(fresh_books, tmp_path)
    asyncio.run(log.write())
    return log


@pytest.fixture
def verify(log: Log, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Runs `llmmesh-audit verify`; the live database unless an export is named."""

    def run(*arguments: str, anchored: bool = False) -> tuple[int, str]:
        anchor = ["--anchor", str(log.anchor)] if anchored else []
        with pytest.raises(SystemExit) as exit:
            main(["verify", "--database-url", log.url, "--keys", str(log.key_file), *anchor, *arguments])
        return int(str(exit.value.code)), capsys.readouterr().out.strip()

    return run


@pytest.fixture
def export(log: Log) -> Path:
    """An export of the chain."""
    path = log.folder / "export.jsonl"
    with pytest.raises(SystemExit, match="0"):
        main(["export", "--database-url", log.url, "--tenant", "acme", "--output", str(path)])
    return path


def awaited(database: psycopg.Connection[Any]) -> bool:
    """Whether somebody waits for what the connection's transaction has locked."""
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    return bool(database.execute(waiting).fetchall())


async def _migrate(url: str) -> None:
    engine = create_async_engine(url)
    await upgrade(engine)
    await engine.dispose()
