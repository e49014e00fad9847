"""The schema: made by migrations, the same as the code's, safe to make twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.billing.audit.chain import Head, Record, chained
from services.billing.database import books, schema
from services.billing.database.columns import metadata
from services.billing.database.engine import Database
from services.billing.migrations.upgrade import MIGRATING, upgrade
from tests.room.billing.conftest import awaited
from tests.support.waiting import until

KEPT = {
    "ledger": "id = DEFAULT",
    "audit_records": "body = ''",
    "audit_checkpoints": "jws = ''",
    "prices": "id = DEFAULT",
    "exchange_rates": "id = DEFAULT",
    "margins": "id = DEFAULT",
}


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


def differences(connection: Connection) -> list[object]:
    assert {books.ledger.metadata, schema.tenants.metadata} == {metadata}
    return list(compare_metadata(MigrationContext.configure(connection, opts={"include_object": whole}), metadata))


def whole(_: object, name: str | None, kind: str, *rest: object) -> bool:
    """Whether it is no partition: those come and go."""
    return not (kind == "table" and str(name).startswith("ledger_"))


async def test_migrations_make_the_tables_the_code_expects(engine: AsyncEngine) -> None:
    await upgrade(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_processes_that_migrate_at_once_do_not_collide(engine: AsyncEngine) -> None:
    await asyncio.gather(*(upgrade(engine) for _ in range(4)))
    async with engine.connect() as connection:
        assert (await connection.scalar(text("SELECT count(*) FROM alembic_version"))) == 1


async def test_a_migration_waits_its_turn_however_little_a_call_may_wait(database_url: str) -> None:
    database = Database(database_url, seconds=0.001, connections=1, lock_seconds=0.001)
    with psycopg.connect(database.address, autocommit=True) as other:
        with other.transaction():
            other.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATING])
            migrating = asyncio.create_task(upgrade(database.engine))
            await until(lambda: asyncio.to_thread(awaited, other))
        await migrating
    await database.close()


@pytest.mark.parametrize("table", [*KEPT])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET {}"])
async def test_books_refuse_to_be_rewritten(engine: AsyncEngine, table: str, change: str) -> None:
    await upgrade(engine)
    async with engine.connect() as connection:
        with pytest.raises(ProgrammingError, match="only ever added"):
            await connection.execute(text(change.format(table, KEPT[table])))


async def test_events_from_before_the_chain_become_its_first_records(engine: AsyncEngine) -> None:
    await upgrade(engine, "0002_routing_policy")
    async with engine.begin() as connection:
        for tenant_id, request_id in [("acme", "r1"), ("beta", "r2"), ("acme", "r3")]:
            await connection.execute(_OLD_EVENT, {"tenant_id": tenant_id, "request_id": request_id})
    await upgrade(engine)
    async with engine.connect() as connection:
        rows = (await connection.execute(text("SELECT * FROM audit_records ORDER BY tenant_id, position"))).mappings()
        records = [Record(**row) for row in rows]
        ends = (await connection.execute(text("SELECT * FROM audit_chains ORDER BY tenant_id"))).all()
    assert [(record.tenant_id, record.request_id) for record in records] == [
        ("acme", "r1"), ("acme", "r3"), ("beta", "r2")
    ]  # fmt: skip
    assert [tuple(end) for end in ends] == [("acme", 2, records[1].sha256), ("beta", 1, records[2].sha256)]
    assert records == [
        *chained(Head(), [record.event() for record in records[:2]]),
        *chained(Head(), [records[2].event()]),
    ]
    assert records[0].event().guard_rules == ("card", "e-mail, «работа»")


_OLD_EVENT = text("""
INSERT INTO audit_events (tenant_id, request_id, key_id, model, outcome, reason, data_class, guard_rules,
    guard_policy_version, deployment, cache_status, prompt_sha256, answer_sha256)
VALUES (:tenant_id, :request_id, 'k', 'small', 'blocked', '', 'sensitive', ARRAY['card', 'e-mail, «работа»'], '7', '',
    '', '', '')
""")


def test_the_command_migrates_and_says_so(database_url: str) -> None:
    command = [sys.executable, "-m", "services.billing.migrations"]
    environment = {**os.environ, "LLMMESH_BILLING_DATABASE_URL": database_url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "The database is up to date.\n"


def test_the_command_names_what_is_missing() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLMMESH_")}
    command = [sys.executable, "-m", "services.billing.migrations"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "LLMMESH_BILLING_DATABASE_URL" in done.stderr
