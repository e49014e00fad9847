"""Chains are sealed whatever somebody with all rights did to the checkpoints of another, and whatever key signs."""

from __future__ import annotations

import asyncio

import orjson
import psycopg
import pytest

from services.billing.audit.checkpoints import Seal
from services.billing.audit.command import main
from services.billing.database.audit import AuditStore
from services.billing.database.checkpoints import CheckpointStore
from services.billing.database.engine import Database
from services.billing.key_file import signing_keys_from
from services.billing.signing_keys import promote, stage
from tests.room.billing.audit_log import Log, Verify, event

UNREADABLE = "UPDATE audit_checkpoints SET jws = 'abc' WHERE tenant_id = 'acme' AND size = 30"


async def grow(log: Log, *tampering: str) -> list[str]:
    """Let two chains grow, seal what is whole after the tampering; returns whose chains were not sealed."""
    database = Database(log.url, seconds=20, connections=2)
    database.open()
    await AuditStore(database).append([[event(31)], [event(31, "beta")]])
    log.tamper(*tampering)
    await log.notary(database).seal_grown()
    grown = await CheckpointStore(database).grown()
    await database.close()
    return grown


@pytest.mark.parametrize(
    "replacement",
    [
        "UPDATE audit_checkpoints SET jws = (SELECT jws FROM audit_checkpoints WHERE size = 10) WHERE size = 30",
        "UPDATE audit_checkpoints SET peaks = '' WHERE size = 30",
        UNREADABLE,
    ],
)
def test_a_replaced_checkpoint_is_told_and_other_chains_are_sealed(log: Log, replacement: str) -> None:
    assert asyncio.run(grow(log, replacement)) == ["acme"]
    with psycopg.connect(log.url.replace("+psycopg", "")) as connection:
        (told,) = connection.execute("SELECT text FROM alerts WHERE kind = 'audit' AND tenant_id = 'acme'").fetchall()
    assert told[0].startswith("checkpoint: the newest checkpoint was replaced: ")


def test_a_checkpoint_that_cannot_be_read_keeps_no_other_from_being_told_again(log: Log) -> None:
    async def newest() -> list[str]:
        database = Database(log.url, seconds=20, connections=2)
        database.open()
        found = await CheckpointStore(database).newest()
        await database.close()
        return [checkpoint.tenant_id for checkpoint in found]

    asyncio.run(grow(log, UNREADABLE))
    assert asyncio.run(newest()) == ["beta"]


def test_what_lies_in_the_place_of_a_checkpoint_is_read_on_past_by_its_place(log: Log) -> None:
    """An auditor gets it as it lies there, whatever it says."""

    async def read() -> list[tuple[int, bool]]:
        database = Database(log.url, seconds=20, connections=2)
        database.open()
        rows = await CheckpointStore(database).between("acme", 0, 99, most=9)
        await database.close()
        return [(row.size, row.checkpoint is not None) for row in rows]

    asyncio.run(grow(log, UNREADABLE))
    assert asyncio.run(read()) == [(10, True), (20, True), (30, False)]


def test_checkpoints_signed_before_and_after_an_exchange_of_keys_fit_what_is_published(
    log: Log, verify: Verify, capsys: pytest.CaptureFixture[str]
) -> None:
    stage(log.key_file)
    promote(log.key_file, at_once=True)
    assert asyncio.run(grow(log)) == []
    published = log.folder / "published.json"
    published.write_bytes(Seal(signing_keys_from(log.key_file)).keys())
    status, told = verify("--keys", str(published))
    assert status == 0
    assert "acme: intact: 31 records, 4 checkpoints" in told
    with pytest.raises(SystemExit, match="0"):
        main(["keys", str(log.key_file)])
    assert orjson.loads(capsys.readouterr().out) == orjson.loads(published.read_bytes())
