"""The audit log: appended to, read back, never changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import grpc
import pytest

from llmmesh.audit.v1 import audit_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from services.billing.audit.command import main
from tests.room.billing.conftest import Configure
from tests.support.billing_room import ADMIN, Room, billing_room

SHA256 = "a" * 64


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def append(room: Room, *events: audit_pb2.Event) -> None:
    await room.audit.RecordEvents(audit_pb2.RecordEventsRequest(events=events))


async def listed(
    room: Room, tenant_id: str, caller: Identity = ADMIN, *, request_id: str = ""
) -> list[audit_pb2.Event]:
    request = audit_pb2.ListEventsRequest(tenant_id=tenant_id, request_id=request_id)
    with acting_as(caller):
        return list((await room.audit.ListEvents(request)).events)


async def test_an_event_is_read_back_as_it_was_written(room: Room) -> None:
    event = audit_pb2.Event(
        request_id="r1", tenant_id="whole", key_id="k", model="small", outcome="blocked", reason="PROMPT_BLOCKED",
        data_class=chat_pb2.DATA_CLASS_SENSITIVE, guard_rules=["card", "e-mail, work"], guard_policy_version="7",
        deployment="local/small", cache_status="bypass", prompt_sha256=SHA256, answer_sha256=SHA256,
    )  # fmt: skip
    event.create_time.FromSeconds(1_700_000_000)
    event.findings.add(rule="card", layer="patterns", category="personal_data", severity="medium", direction="input")
    event.MergeFrom(
        audit_pb2.Event(
            unguarded=True, tenant_policy_version="3", provider="local", candidates=["local/small", "cloud/large"],
            cached_request_id="r0", cost_micros=7, currency_code="RUB", finish_reason=chat_pb2.FINISH_REASON_STOP,
            attempts=[audit_pb2.Attempt(deployment="cloud/large", reason="PROVIDER_TIMEOUT")], routes_version="abc",
        )
    )  # fmt: skip
    event.price_time.FromSeconds(1_600_000_000)
    await append(room, event)
    (read,) = await listed(room, "whole")
    assert (read.position, len(read.record_sha256)) == (1, 64)
    read.ClearField("position")
    read.ClearField("record_sha256")
    assert read == event


async def test_events_with_a_known_request_id_are_skipped(room: Room) -> None:
    await append(room, audit_pb2.Event(request_id="r1", tenant_id="twice", outcome="answered"))
    await append(room, audit_pb2.Event(request_id="r1", tenant_id="twice", outcome="failed"))
    await append(room, audit_pb2.Event(request_id="r2", tenant_id="twice", outcome="failed"))
    assert [event.outcome for event in await listed(room, "twice")] == ["failed", "answered"]
    assert [event.outcome for event in await listed(room, "twice", request_id="r1")] == ["answered"]


async def test_a_thousand_events_are_read_newest_first_in_pages(room: Room) -> None:
    events = [audit_pb2.Event(request_id=f"r{number}", tenant_id="many", outcome="answered") for number in range(1000)]
    for number, event in enumerate(events):
        event.create_time.FromSeconds(1_700_000_000 + number)
    await append(room, *events)
    read: list[str] = []
    token = ""
    for _ in range(4):
        request = audit_pb2.ListEventsRequest(tenant_id="many", page_size=300, page_token=token)
        with acting_as(ADMIN):
            page = await room.audit.ListEvents(request)
        read += [event.request_id for event in page.events]
        token = page.next_page_token
    assert not token
    assert read == [f"r{number}" for number in reversed(range(1000))]


async def test_more_than_a_thousand_events_are_refused(room: Room) -> None:
    error = await refusal(append(room, *(audit_pb2.Event() for _ in range(1001))))
    assert error_reason(error) == "FIELD_INVALID"


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("events[0].request_id", {"request_id": ""}),
        ("events[0].tenant_id", {"tenant_id": ""}),
        ("events[0].outcome", {"outcome": "lost"}),
        ("events[0].cache_status", {"cache_status": "maybe"}),
        ("events[0].data_class", {"data_class": 99}),
        ("events[0].prompt_sha256", {"prompt_sha256": "the prompt itself"}),
        ("events[0].answer_sha256", {"answer_sha256": SHA256.upper()}),
        ("events[0].guard_rules", {"guard_rules": [""]}),
        ("events[0].model", {"model": "a\0"}),
        ("events[0].cost_micros", {"cost_micros": -1}),
        ("events[0].candidates", {"candidates": ["a"] * 101}),
        ("events[0].attempts[0].deployment", {"attempts": [audit_pb2.Attempt(reason="PROVIDER_TIMEOUT")]}),
        ("events[0].findings[0].severity", {"findings": [audit_pb2.Finding(rule="a", direction="input")]}),
    ],
)
async def test_a_bad_field_of_an_event_is_named(room: Room, field: str, fields: dict[str, object]) -> None:
    good: dict[str, object] = {"request_id": "r1", "tenant_id": "bad-fields", "outcome": "answered"}
    error = await refusal(append(room, audit_pb2.Event(**{**good, **fields})))  # type: ignore[arg-type]
    info = error_info(error)
    assert info
    assert (info.reason, info.metadata["field"]) == ("FIELD_INVALID", field)


async def test_auditors_read_their_own_tenant_alone_and_developers_nothing(room: Room) -> None:
    await append(room, audit_pb2.Event(request_id="r1", tenant_id="watched", outcome="answered"))
    auditor = Identity("watched", "key", frozenset({"auditor"}), "req")
    assert len(await listed(room, "watched", auditor)) == 1
    stranger = Identity("elsewhere", "key", frozenset({"auditor"}), "req")
    assert error_reason(await refusal(listed(room, "watched", stranger))) == "RESOURCE_NOT_FOUND"
    developer = Identity("watched", "key", frozenset({"developer"}), "req")
    assert error_reason(await refusal(listed(room, "watched", developer))) == "ROLE_MISSING"


async def test_the_exported_chain_is_whole_and_the_service_tells_how_to_check_it(
    configure: Configure, books: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anchor = tmp_path / "anchors" / "checkpoints.jsonl"
    settings = {"audit_checkpoint_seconds": 0.02, "audit_anchor_file": anchor, "audit_key_file": tmp_path / "key.json"}
    auditor = Identity("sealed", "key", frozenset({"auditor"}), "req")
    async with billing_room(configure(books, **settings)) as room:
        events = [
            audit_pb2.Event(request_id=f"r{number}", tenant_id="sealed", outcome="answered") for number in range(600)
        ]
        await append(room, *events)
        with acting_as(auditor):
            await eventually_sealed(room, 600)
            chain = await room.audit.GetChain(audit_pb2.GetChainRequest(tenant_id="sealed"))
            listed = await room.audit.ListCheckpoints(audit_pb2.ListCheckpointsRequest(tenant_id="sealed"))
            pieces = room.audit.ExportChain(audit_pb2.ExportChainRequest(tenant_id="sealed"))
            export = b"".join([piece.data async for piece in pieces])
    assert chain.length == 600
    assert chain.checkpoint == listed.checkpoints[0]
    assert chain.checkpoint.head_sha256 == chain.head_sha256
    (tmp_path / "export.jsonl").write_bytes(export)
    (tmp_path / "keys.json").write_text(chain.keys_json)
    files = [str(tmp_path / "export.jsonl"), "--keys", str(tmp_path / "keys.json"), "--anchor", str(anchor)]
    with pytest.raises(SystemExit, match="0"):
        main(["verify", *files])
    assert "sealed: intact: 600 records" in capsys.readouterr().out


@pytest.mark.parametrize("call", ["GetChain", "ListCheckpoints", "ExportChain"])
async def test_a_chain_is_shown_to_auditors_of_its_tenant_alone(room: Room, call: str) -> None:
    request = getattr(audit_pb2, f"{call}Request")(tenant_id="guarded")

    async def ask(tenant_id: str, role: str) -> str | None:
        with acting_as(Identity(tenant_id, "key", frozenset({role}), "req")):
            answer = getattr(room.audit, call)(request)
            return error_reason(await refusal(answer.read() if call == "ExportChain" else answer))

    assert await ask("elsewhere", "auditor") == "RESOURCE_NOT_FOUND"
    assert await ask("guarded", "developer") == "ROLE_MISSING"


async def eventually_sealed(room: Room, size: int) -> None:
    async with asyncio.timeout(30):
        while True:
            chain = await room.audit.GetChain(audit_pb2.GetChainRequest(tenant_id="sealed"))
            if chain.checkpoint.size == size:
                return
