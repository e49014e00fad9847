"""The gateway among real rooms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from services.billing.config import BillingConfig
from services.billing.migrations.upgrade import upgrade
from tests.support.billing_room import Room, billing_room
from tests.support.fix_postgres import Postgres
from tests.support.gateway_room import PRICES, Front, Tenant, front_room


@pytest.fixture(scope="session")
def books_url(postgres: Postgres) -> Iterator[str]:
    """A database with billing's schema in it."""
    name = postgres.create_database()
    asyncio.run(_migrate(postgres.url(name)))
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rooms")


@pytest.fixture(scope="module")
def billing_config(books_url: str, folder: Path) -> BillingConfig:
    prices = folder / "prices.yaml"
    prices.write_text(PRICES)
    return BillingConfig.model_validate(
        {
            "database_url": books_url,
            "listen": "127.0.0.1:0",
            "metrics_listen": "",
            "drain_seconds": 1,
            "signing_key_file": folder / "signing-key.json",
            "prices": prices,
        }
    )


@pytest.fixture(scope="module")
async def billing(billing_config: BillingConfig) -> AsyncIterator[Room]:
    async with billing_room(billing_config) as room:
        yield room


@pytest.fixture(scope="module")
async def shared(billing: Room, redis_url: str, folder: Path) -> AsyncIterator[Front]:
    """One gateway for the tests of a module."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SCRIPTED_KEY", "sk-scripted")
        async with front_room(billing, redis_url, folder, guard_timeout_seconds=2, cache_timeout_seconds=5) as front:
            yield front


@pytest.fixture
def front(shared: Front) -> Front:
    """The gateway, with scripts as they were at the start."""
    shared.first.reset()
    shared.second.reset()
    shared.guard.__init__()
    return shared


@pytest.fixture
async def tenant(front: Front) -> Tenant:
    return await front.tenant()


async def _migrate(url: str) -> None:
    engine = create_async_engine(url)
    await upgrade(engine)
    await engine.dispose()
