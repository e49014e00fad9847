"""Violations: counted as events come in, listed, exported, and gone when they are old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import orjson
import pytest

from llmmesh.audit.v1 import audit_pb2, compliance_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from services.billing.database.engine import Database
from services.billing.database.violations import ViolationStore
from tests.support.billing_room import ADMIN, Room

START = int(time.time()) - 86_400
ATTACK = audit_pb2.Finding(
    rule="injection.override.en", layer="patterns", category="prompt_injection", severity="high", direction="input",
    masked_context="ignore previous instructions",
)  # fmt: skip
SNILS = audit_pb2.Finding(
    rule="personal_data.snils", layer="patterns", category="personal_data", severity="medium", direction="input",
    masked_context="СНИЛС [personal_data]",
)  # fmt: skip


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def happened(room: Room, tenant_id: str, number: int, *findings: audit_pb2.Finding, **fields: Any) -> None:
    event = audit_pb2.Event(
        request_id=f"r{number}", tenant_id=tenant_id, outcome="blocked", findings=findings, **fields
    )
    event.create_time.FromSeconds(START + number)
    await room.audit.RecordEvents(audit_pb2.RecordEventsRequest(events=[event]))


async def listed(room: Room, caller: Identity = ADMIN, **wanted: Any) -> list[compliance_pb2.Violation]:
    request = compliance_pb2.ListViolationsRequest(filter=compliance_pb2.ViolationFilter(**wanted))
    with acting_as(caller):
        return list((await room.compliance.ListViolations(request)).violations)


async def test_a_violation_is_kept_with_its_masked_context_and_the_chain_without(room: Room) -> None:
    await happened(room, "attacked", 1, ATTACK, SNILS, key_id="k", model="m")
    (violation,) = await listed(room, tenant_id="attacked")
    assert (violation.request_id, violation.type, violation.severity) == ("r1", "prompt_injection", "high")
    assert (violation.context, list(violation.packs), violation.outcome) == (ATTACK.masked_context, ["base"], "blocked")
    with acting_as(ADMIN):
        events = (await room.audit.ListEvents(audit_pb2.ListEventsRequest(tenant_id="attacked"))).events
    assert "ignore" not in str(events)
    with room.database() as connection:
        (body,) = connection.execute("SELECT body FROM audit_records WHERE tenant_id = 'attacked'").fetchone() or ()
    assert "ignore" not in body


async def test_an_event_that_is_told_twice_is_one_violation(room: Room) -> None:
    await happened(room, "twice-told", 1, ATTACK)
    await happened(room, "twice-told", 1, ATTACK)
    assert len(await listed(room, tenant_id="twice-told")) == 1


async def test_a_tenant_that_chooses_a_pack_is_held_to_it_from_then_on(room: Room) -> None:
    await room.tenant("russian", policy=tenant_pb2.Policy(compliance_packs=["fz152", "fz152"]))
    async with asyncio.timeout(20):
        number = 0
        while not (found := await listed(room, tenant_id="russian")):
            number += 1
            await happened(room, "russian", number, SNILS)
    assert (found[0].type, found[0].severity, list(found[0].packs)) == ("state_identifier", "high", ["fz152"])
    with acting_as(ADMIN):
        tenant = (await room.tenants.GetTenant(tenant_pb2.GetTenantRequest(tenant_id="russian"))).tenant
    assert list(tenant.policy.compliance_packs) == ["fz152"]


@pytest.mark.parametrize(
    ("field", "policy"),
    [
        ("policy.compliance_packs", tenant_pb2.Policy(compliance_packs=["hipaa"])),
        ("policy.violation_days", tenant_pb2.Policy(violation_days=-1)),
        ("policy.violation_days", tenant_pb2.Policy(violation_days=4000)),
    ],
)
async def test_a_pack_that_does_not_exist_is_refused(room: Room, field: str, policy: tenant_pb2.Policy) -> None:
    error = await refusal(room.tenant("nobody", policy=policy))
    info = error_info(error)
    assert info
    assert info.metadata["field"] == field


async def test_packs_say_what_they_count(room: Room) -> None:
    with acting_as(ADMIN):
        packs = (await room.compliance.ListPacks(compliance_pb2.ListPacksRequest())).packs
    assert [pack.name for pack in packs] == ["base", "fintech", "fz152", "gdpr"]
    assert "cross_border_transfer" in next(pack for pack in packs if pack.name == "fz152").violation_types


async def test_violations_are_filtered_and_read_in_pages(room: Room) -> None:
    for number in range(5):
        await happened(room, "filtered", number, ATTACK)
    await happened(room, "filtered", 5, unguarded=True)
    assert [each.request_id for each in await listed(room, tenant_id="filtered", type="unguarded")] == ["r5"]
    assert await listed(room, tenant_id="filtered", least_severity="critical") == []
    window = {"start_time": _time(1), "end_time": _time(3)}
    assert [each.request_id for each in await listed(room, tenant_id="filtered", **window)] == ["r2", "r1"]
    read: list[str] = []
    token = ""
    with acting_as(ADMIN):
        for _ in range(3):
            request = compliance_pb2.ListViolationsRequest(
                filter=compliance_pb2.ViolationFilter(tenant_id="filtered"), page_size=2, page_token=token
            )
            page = await room.compliance.ListViolations(request)
            read += [each.request_id for each in page.violations]
            token = page.next_page_token
    assert (read, token) == (["r5", "r4", "r3", "r2", "r1", "r0"], "")


@pytest.mark.parametrize(("form", "lines"), [("jsonl", 3), ("", 3), ("csv", 4)])
async def test_violations_are_exported(room: Room, form: str, lines: int) -> None:
    for number in range(3):
        await happened(room, f"exported-{form or 'plain'}", number, ATTACK)
    request = compliance_pb2.ExportViolationsRequest(
        filter=compliance_pb2.ViolationFilter(tenant_id=f"exported-{form or 'plain'}"), format=form
    )
    with acting_as(ADMIN):
        text = b"".join([piece.data async for piece in room.compliance.ExportViolations(request)]).decode()
    assert len(text.splitlines()) == lines
    if form != "csv":
        assert [orjson.loads(line)["request_id"] for line in text.splitlines()] == ["r2", "r1", "r0"]


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("filter.least_severity", {"least_severity": "worst"}),
        ("filter.end_time", {"start_time": 2, "end_time": 1}),
        ("tenant_id", {"tenant_id": "NO"}),
    ],
)
async def test_a_bad_filter_is_named(room: Room, field: str, wanted: dict[str, Any]) -> None:
    wanted = {name: _time(value) if name.endswith("time") else value for name, value in wanted.items()}
    info = error_info(await refusal(listed(room, **{"tenant_id": "acme", **wanted})))
    assert info
    assert info.metadata["field"] == field


async def test_violations_are_shown_to_auditors_of_their_tenant_alone(room: Room) -> None:
    await happened(room, "shown", 1, ATTACK)
    assert len(await listed(room, Identity("shown", "k", frozenset({"auditor"}), "r"), tenant_id="shown")) == 1
    stranger = Identity("elsewhere", "k", frozenset({"auditor"}), "r")
    assert error_reason(await refusal(listed(room, stranger, tenant_id="shown"))) == "RESOURCE_NOT_FOUND"
    developer = Identity("shown", "k", frozenset({"developer"}), "r")
    assert error_reason(await refusal(listed(room, developer, tenant_id="shown"))) == "ROLE_MISSING"


async def test_violations_go_when_their_tenants_policy_says(room: Room) -> None:
    await room.tenant("forgetful", policy=tenant_pb2.Policy(violation_days=10))
    store_days = 400
    now = datetime.now(UTC)
    for tenant_id, days in [("forgetful", 9), ("forgetful", 11), ("keeping", 11), ("keeping", 401)]:
        with room.database() as connection:
            connection.execute(
                "INSERT INTO violations (tenant_id, request_id, key_id, model, type, severity, packs, outcome, rule,"
                " direction, context, create_time) VALUES (%s, %s, '', '', 'secret', 'high', '{}', '', '', '', '', %s)",
                [tenant_id, f"d{days}", now - timedelta(days=days)],
            )
    database = Database(room.config.database_url.get_secret_value(), seconds=20, connections=1)
    database.open()
    await ViolationStore(database).sweep(store_days)
    await database.close()
    left = [each.request_id for name in ("forgetful", "keeping") for each in await listed(room, tenant_id=name)]
    assert left == ["d9", "d11"]


def _time(number: int) -> Any:
    return {"seconds": START + number}
