"""Billing, run for real on a real Postgres, and the stubs to call it by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from services.billing.config import BillingConfig
from services.billing.migrations.upgrade import upgrade
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


async def _migrate(url: str) -> None:
    engine = create_async_engine(url)
    await upgrade(engine)
    await engine.dispose()
