"""Checkpoints kept by a receiver outside the database, which is down now and then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from aiohttp import web

from llmmesh.audit.v1 import audit_pb2
from services.billing.audit.anchor import Anchor, AnchorAway, anchors, webhook_anchor
from services.billing.audit.checkpoints import Checkpoint, Seal, stated
from services.billing.audit.command import main
from services.billing.audit.export import ExportInvalid, anchored
from services.billing.key_file import signing_keys_from
from tests.room.billing.conftest import Configure
from tests.support.billing_room import billing_room


@dataclass
class Receiver:
    """Takes what is posted, or answers as told; notes the statuses that it gave."""

    answers: list[int] = field(default_factory=list)
    """Statuses of the next answers; 200 when there are no more."""
    taken: list[bytes] = field(default_factory=list)
    url: str = ""
    seen: asyncio.Queue[int] = field(default_factory=asyncio.Queue)

    async def post(self, request: web.Request) -> web.Response:
        status = self.answers.pop(0) if self.answers else 200
        body = await request.read()
        if status == 200:
            self.taken.append(body)
        self.seen.put_nowait(status)
        return web.Response(status=status, headers={"Location": "http://elsewhere.example/"})

    async def took(self) -> None:
        """Wait until something was taken."""
        async with asyncio.timeout(30):
            while await self.seen.get() != 200:
                pass


@asynccontextmanager
async def receiving(*answers: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(answers))
    app = web.Application()
    app.router.add_post("/anchor", receiver.post)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/anchor"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def sealed(folder: Path, count: int) -> Sequence[Checkpoint]:
    seal = Seal(signing_keys_from(folder / "key.json"))
    return [seal.sign(tenant_id="acme", size=size, root="0", head="0", after=None) for size in range(1, count + 1)]


@pytest.mark.parametrize("refusal", [500, 302, 404])
async def test_what_a_receiver_did_not_take_comes_with_the_next_in_order(tmp_path: Path, refusal: int) -> None:
    first, second, third = sealed(tmp_path, 3)
    async with receiving(refusal) as receiver:
        anchor = Anchor("webhook", webhook_anchor(receiver.url))
        anchor.add(first)
        await anchor.flush()
        assert receiver.taken == []
        anchor.add(second)
        anchor.add(third)
        await anchor.flush()
        await anchor.flush()
        (lines,) = receiver.taken
    assert all(each.jws.encode() in line for each, line in zip((first, second, third), lines.splitlines(), strict=True))


async def test_many_checkpoints_go_in_pieces_and_none_is_lost_when_one_piece_is_refused(tmp_path: Path) -> None:
    (checkpoint,) = sealed(tmp_path, 1)
    async with receiving(200, 503) as receiver:
        anchor = Anchor("webhook", webhook_anchor(receiver.url))
        for _ in range(1500):
            anchor.add(checkpoint)
        await anchor.flush()
        assert [len(lines.splitlines()) for lines in receiver.taken] == [1000]
        await anchor.flush()
        assert [len(lines.splitlines()) for lines in receiver.taken] == [1000, 500]


async def test_a_receiver_that_is_not_there_is_said_to_be_away() -> None:
    async with receiving() as receiver:
        gone = receiver.url
    with pytest.raises(AnchorAway):
        await webhook_anchor(gone)(b"{}\n")


async def test_one_place_that_is_away_keeps_nothing_from_the_other(tmp_path: Path) -> None:
    (checkpoint,) = sealed(tmp_path, 1)
    (tmp_path / "taken").write_text("a file where a folder is needed")
    async with receiving() as receiver:
        for anchor in anchors(tmp_path / "taken" / "anchor.jsonl", receiver.url):
            anchor.add(checkpoint)
            await anchor.flush()
        assert len(receiver.taken) == 1


async def test_a_line_that_a_full_disk_cut_off_spoils_none_of_those_after_it(tmp_path: Path) -> None:
    first, second = sealed(tmp_path, 2)
    path = tmp_path / "anchor.jsonl"
    path.write_text('{"checkpoint":"eyJhbGciOi')
    for anchor in anchors(path, None):
        for checkpoint in (first, second):
            anchor.add(checkpoint)
            await anchor.flush()
    assert anchored([path]) == {"acme": [first.jws, second.jws]}


def test_a_file_that_is_no_anchor_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "anchor.jsonl"
    path.write_text("not json\n")
    with pytest.raises(ExportInvalid, match=r"anchor\.jsonl:1: is not JSON"):
        anchored([path])


async def test_what_waited_when_a_process_ended_is_told_by_the_next_one(
    configure: Configure, fresh_books: str, tmp_path: Path
) -> None:
    key = {"audit_checkpoint_seconds": 0.02, "audit_key_file": tmp_path / "audit-key.json"}
    async with receiving() as nobody:
        away = nobody.url
    async with billing_room(configure(fresh_books, audit_anchor_url=away, **key)) as room:
        event = audit_pb2.Event(request_id="r1", tenant_id="acme", outcome="answered")
        await room.audit.RecordEvents(audit_pb2.RecordEventsRequest(events=[event]))
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(count_of_checkpoints, fresh_books):
                pass
    async with receiving() as receiver, billing_room(configure(fresh_books, audit_anchor_url=receiver.url, **key)):
        await receiver.took()
    (told,) = [stated(json.loads(line)["checkpoint"]) for line in receiver.taken[0].splitlines()]
    assert (told.tenant_id, told.size) == ("acme", 1)


def count_of_checkpoints(url: str) -> int:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM audit_checkpoints").fetchall()
    return int(count)


async def test_a_chain_cut_off_with_all_that_told_of_it_is_named_by_what_the_receiver_holds(
    configure: Configure, fresh_books: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with receiving(500) as receiver:
        settings = {"audit_checkpoint_seconds": 0.02, "audit_anchor_url": receiver.url}
        key_file = tmp_path / "audit-key.json"
        async with billing_room(configure(fresh_books, audit_key_file=key_file, **settings)) as room:
            events = [audit_pb2.Event(request_id=f"r{n}", tenant_id="acme", outcome="answered") for n in range(5)]
            await room.audit.RecordEvents(audit_pb2.RecordEventsRequest(events=events))
            await receiver.took()
    (tmp_path / "anchor.jsonl").write_bytes(b"".join(receiver.taken))

    def verify() -> tuple[object, str]:
        files = ["--keys", str(key_file), "--anchor", str(tmp_path / "anchor.jsonl")]
        with pytest.raises(SystemExit) as ended:
            main(["verify", "--database-url", fresh_books, *files])
        return ended.value.code, capsys.readouterr().out

    assert verify()[0] == 0
    with psycopg.connect(fresh_books.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for table in ("audit_records", "audit_checkpoints", "audit_chains"):
            connection.execute(f"DELETE FROM {table}".encode())
    status, told = verify()
    assert status == 1
    assert "acme: truncated: the chain ends at record 0; records 1 to 5 are gone" in told
