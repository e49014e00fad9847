"""The audit log: appended to, read back, never changed."""

from __future__ import annotations

from collections.abc import Awaitable

import grpc
import pytest

from llmmesh.audit.v1 import audit_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import ADMIN, Room

SHA256 = "a" * 64


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def append(room: Room, *events: audit_pb2.Event) -> None:
    await room.audit.RecordEvents(audit_pb2.RecordEventsRequest(events=events))


async def listed(room: Room, tenant_id: str, caller: Identity = ADMIN) -> list[audit_pb2.Event]:
    with acting_as(caller):
        return list((await room.audit.ListEvents(audit_pb2.ListEventsRequest(tenant_id=tenant_id))).events)


async def test_an_event_is_read_back_as_it_was_written(room: Room) -> None:
    event = audit_pb2.Event(
        request_id="r1", tenant_id="whole", key_id="k", model="small", outcome="blocked", reason="PROMPT_BLOCKED",
        data_class=chat_pb2.DATA_CLASS_SENSITIVE, guard_rules=["card", "e-mail, work"], guard_policy_version="7",
        deployment="local/small", cache_status="bypass", prompt_sha256=SHA256, answer_sha256=SHA256,
    )  # fmt: skip
    event.create_time.FromSeconds(1_700_000_000)
    await append(room, event)
    assert await listed(room, "whole") == [event]


async def test_events_with_a_known_request_id_are_skipped(room: Room) -> None:
    await append(room, audit_pb2.Event(request_id="r1", tenant_id="twice", outcome="answered"))
    await append(room, audit_pb2.Event(request_id="r1", tenant_id="twice", outcome="failed"))
    assert [event.outcome for event in await listed(room, "twice")] == ["answered"]


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
