"""What the audit log says when somebody with all rights over the database has been at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from services.billing.audit.checkpoints import Seal, stated
from services.billing.audit.command import main
from services.billing.database.audit import AuditStore
from services.billing.database.checkpoints import CheckpointStore
from services.billing.database.engine import Database
from services.billing.key_file import signing_keys_from
from tests.room.billing.audit_log import Log, Verify, event


def test_a_chain_nobody_touched_is_intact(log: Log, verify: Verify) -> None:
    whole = "acme: intact: 30 records, 3 checkpoints, 0 records younger than the last checkpoint"
    assert verify(anchored=True) == (0, whole)


def test_an_altered_record_is_named(log: Log, verify: Verify) -> None:
    log.tamper("UPDATE audit_records SET body = replace(body, 'answered', 'blocked') WHERE position >= 7")
    assert verify() == (1, "acme: altered: record 7 is not what was written (request r7)")


def test_a_record_altered_together_with_its_own_hash_is_named(log: Log, verify: Verify) -> None:
    log.rewrite(7, {"outcome": "blocked"}, until=7)
    assert verify() == (1, "acme: altered: record 7 is not the one that record 8 follows")


def test_the_last_record_altered_with_its_own_hash_is_named(log: Log, verify: Verify) -> None:
    log.tamper("DELETE FROM audit_checkpoints WHERE size = 30")
    log.rewrite(30, {"outcome": "blocked"})
    log.tamper("UPDATE audit_chains SET sha256 = 'other'")
    assert verify() == (1, "acme: altered: record 30 is not the one that the chain was left with")


def test_a_chain_hashed_anew_is_not_the_one_that_was_signed(log: Log, verify: Verify) -> None:
    log.rewrite(17, {"outcome": "blocked"})
    status, told = verify()
    assert status == 1
    assert told.startswith("acme: rewritten: records 11 to 20 are not those that were signed at ")


def test_a_deleted_record_is_named(log: Log, verify: Verify) -> None:
    log.tamper("DELETE FROM audit_records WHERE position IN (12, 15)")
    assert verify() == (1, "acme: missing: record 12 is missing")


def test_a_deleted_record_is_named_although_the_places_were_filled_up(log: Log, verify: Verify) -> None:
    log.tamper(
        "DELETE FROM audit_records WHERE position = 12",
        "UPDATE audit_records SET position = -position WHERE position > 12",
        "UPDATE audit_records SET position = -position - 1 WHERE position < 0",
    )
    assert verify() == (1, "acme: missing: record 12 is missing")


def test_records_that_changed_places_are_named(log: Log, verify: Verify) -> None:
    log.tamper(
        "UPDATE audit_records SET position = 0 WHERE position = 4",
        "UPDATE audit_records SET position = 4 WHERE position = 9",
        "UPDATE audit_records SET position = 9 WHERE position = 0",
    )
    assert verify() == (1, "acme: re-ordered: record 9 stands in the place of record 4 (request r9)")


def test_a_truncated_tail_is_named(log: Log, verify: Verify) -> None:
    log.tamper("DELETE FROM audit_records WHERE position > 25")
    assert verify() == (1, "acme: truncated: the chain ends at record 25; records 26 to 30 are gone")


def test_a_tail_cut_off_with_everything_that_told_of_it_is_named_by_the_anchor(log: Log, verify: Verify) -> None:
    (_, last) = log.rows()[20]
    log.tamper("DELETE FROM audit_records WHERE position > 20", "DELETE FROM audit_checkpoints WHERE size > 20")
    log.tamper("UPDATE audit_chains SET length = 20, sha256 = %(head)s", head=last["previous"])
    assert verify()[0] == 0
    assert verify(anchored=True) == (1, "acme: truncated: the chain ends at record 20; records 21 to 30 are gone")


def test_a_tenant_that_was_removed_altogether_is_named_by_the_anchor(log: Log, verify: Verify) -> None:
    log.tamper("DELETE FROM audit_records", "DELETE FROM audit_checkpoints", "DELETE FROM audit_chains")
    assert verify(anchored=True) == (1, "acme: truncated: the chain ends at record 0; records 1 to 30 are gone")


def test_a_checkpoint_signed_by_another_key_is_named(log: Log, verify: Verify) -> None:
    with psycopg.connect(log.url.replace("+psycopg", "")) as connection:
        (signed,) = connection.execute("SELECT jws FROM audit_checkpoints WHERE size = 20").fetchone() or ()
    real = stated(signed)
    thief = Seal(signing_keys_from(log.folder / "thief.json"))
    forged = thief.sign(tenant_id="acme", size=20, root=real.root, head=real.head, after=None)
    log.tamper("UPDATE audit_checkpoints SET jws = %(jws)s WHERE size = 20", jws=forged.jws)
    status, told = verify()
    assert status == 1
    assert told.startswith("acme: checkpoint: the checkpoint after the one of 10 records was replaced: its signature")


def test_a_checkpoint_removed_from_between_others_is_named(log: Log, verify: Verify) -> None:
    log.tamper("DELETE FROM audit_checkpoints WHERE size = 20")
    told = "the checkpoint of 30 records does not follow that of 10: one is replaced or gone"
    assert verify() == (1, f"acme: checkpoint: {told}")


def test_the_last_checkpoint_removed_is_named_by_the_anchor(log: Log, verify: Verify) -> None:
    log.tamper("DELETE FROM audit_checkpoints WHERE size = 30")
    told = "the checkpoint of 30 records that was anchored is not here: it was replaced or removed"
    assert verify(anchored=True) == (1, f"acme: checkpoint: {told}")


def test_an_export_is_verified_without_the_database(export: Path, verify: Verify) -> None:
    assert verify(str(export), anchored=True)[0] == 0


def cut(lines: list[bytes]) -> list[bytes]:
    return lines[:24] + lines[30:]


def drop(lines: list[bytes]) -> list[bytes]:
    return lines[:11] + lines[12:]


def swap(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[8], *lines[4:8], lines[3], *lines[9:]]


def alter(lines: list[bytes]) -> list[bytes]:
    return [*lines[:6], lines[6].replace(b"answered", b"blocked"), *lines[7:]]


def replace(lines: list[bytes]) -> list[bytes]:
    return [*lines[:31], lines[30], *lines[32:]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (alter, "altered: record 7 is not what was written (request r7)"),
        (drop, "missing: record 12 is missing"),
        (swap, "re-ordered: record 9 stands in the place of record 4 (request r9)"),
        (cut, "truncated: the chain ends at record 24; records 25 to 30 are gone"),
        (replace, "checkpoint: the checkpoint of 10 records does not follow that of 10: one is replaced or gone"),
    ],
)
def test_a_tampered_export_is_found_out(
    export: Path, verify: Verify, change: Callable[[list[bytes]], list[bytes]], told: str
) -> None:
    export.write_bytes(b"".join(change(export.read_bytes().splitlines(keepends=True))))
    assert verify(str(export)) == (1, f"acme: {told}")


@pytest.mark.parametrize("text", ["", "not json\n", "[]\n", '{"record": 1}\n', '{"checkpoint": "abc"}\n'])
def test_what_is_no_export_is_said_to_be_none(log: Log, tmp_path: Path, verify: Verify, text: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(text)
    assert verify(str(path))[0] == 2


def test_an_export_that_holds_nothing_of_somebody_is_told_by_the_anchor(verify: Verify, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.touch()
    gone = "acme: truncated: the chain ends at record 0; records 1 to 30 are gone"
    assert verify("--tenant", "acme", str(path), anchored=True) == (1, gone)


def test_a_database_that_is_no_url_leaves_nothing_to_be_said(verify: Verify) -> None:
    assert verify("--database-url", "nonsense")[0] == 2


def test_without_keys_nothing_is_called_intact(
    log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LLMMESH_BILLING_SIGNING_KEY_FILE", raising=False)
    with pytest.raises(SystemExit, match="2"):
        main(["verify", "--database-url", log.url])
    assert "give --keys" in capsys.readouterr().err


def test_a_broken_chain_is_not_signed_and_somebody_is_told(log: Log) -> None:
    async def grow() -> list[str]:
        database = Database(log.url, seconds=20, connections=2)
        database.open()
        await AuditStore(database).append([[event(number) for number in range(31, 40)]])
        log.tamper("UPDATE audit_records SET body = replace(body, 'answered', 'blocked') WHERE position = 35")
        await log.notary(database).seal_grown()
        grown = await CheckpointStore(database).grown()
        await database.close()
        return grown

    assert asyncio.run(grow()) == ["acme"]
    with psycopg.connect(log.url.replace("+psycopg", "")) as connection:
        (told,) = connection.execute("SELECT text FROM alerts WHERE kind = 'audit' AND tenant_id = 'acme'").fetchall()
    assert "record 35 is not what was written" in told[0]


def test_many_writers_never_fork_a_chain(log: Log, verify: Verify) -> None:
    async def write(writer: int) -> None:
        database = Database(log.url, seconds=60, connections=2)
        database.open()
        store = AuditStore(database)
        for start in range(1000, 1100, 20):
            # Half of each batch is everyone's, half is this writer's own; two tenants, in either order.
            shared = [event(start + number, "acme") for number in range(10)]
            own = [event(writer * 10_000 + start + number, "beta") for number in range(10)]
            await store.append([own, shared] if writer % 2 else [shared, own])
        await database.close()

    async def all_at_once() -> None:
        await asyncio.gather(*(write(writer) for writer in range(4)))

    asyncio.run(all_at_once())
    status, told = verify()
    assert status == 0
    assert "acme: intact: 80 records" in told
    assert "beta: intact: 200 records" in told
