"""Invoices say what the ledger says, as a message and on paper."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from itertools import count

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pypdf import PdfReader

from llmmesh.billing.v1 import reports_pb2
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import ADMIN, RUBLE, TOKENS_PER_RUBLE, Room

_numbers = count()


@pytest.fixture
async def caller(room: Room) -> Identity:
    """A developer of a new tenant with a Russian name."""
    return await room.tenant(f"invoiced-{next(_numbers)}", display_name="ООО «Ромашка»")


async def invoice(room: Room, tenant_id: str, person: Identity = ADMIN, **period: Timestamp) -> reports_pb2.Invoice:
    with acting_as(person):
        request = reports_pb2.GetInvoiceRequest(tenant_id=tenant_id, **period)
        return (await room.reports.GetInvoice(request)).invoice


async def paper(room: Room, tenant_id: str) -> bytes:
    with acting_as(ADMIN):
        body = await room.reports.ExportInvoice(reports_pb2.ExportInvoiceRequest(tenant_id=tenant_id))
    assert body.content_type == "application/pdf"
    return bytes(body.data)


async def spend(room: Room, caller: Identity, request_id: str, deployment: str, tokens: int) -> None:
    reservation = await room.reserve(caller, request_id, deployments=(deployment,))
    await room.commit(caller, reservation, deployment, input_tokens=tokens)


async def test_it_is_what_the_ledger_sums_to_by_deployment(room: Room, caller: Identity) -> None:
    await spend(room, caller, "r1", "local/small", TOKENS_PER_RUBLE)
    await spend(room, caller, "r2", "local/small", 3)
    await spend(room, caller, "r3", "cloud/large", TOKENS_PER_RUBLE)
    drawn = await invoice(room, caller.tenant_id)
    assert [(line.deployment, line.request_count, line.input_tokens) for line in drawn.lines] == [
        ("cloud/large", 1, TOKENS_PER_RUBLE), ("local/small", 2, TOKENS_PER_RUBLE + 3)
    ]  # fmt: skip
    assert drawn.total_micros == sum(row.cost_micros for row in await room.usage(caller)) == 9 * RUBLE + 300
    assert drawn.payable_micros == 9 * RUBLE
    assert (drawn.currency_code, drawn.final) == ("RUB", False)


async def test_on_paper_it_says_the_same_in_any_alphabet(room: Room, caller: Identity) -> None:
    await spend(room, caller, "r1", "local/small", TOKENS_PER_RUBLE + 3)
    printed = await paper(room, caller.tenant_id)
    text = PdfReader(io.BytesIO(printed)).pages[0].extract_text()
    for part in (
        "ООО «Ромашка»",
        caller.tenant_id,
        "local/small",
        "10,003",
        "Total: 1.0003 RUB",
        "To pay: 1 RUB",
        "draft",
    ):
        assert part in text


async def test_a_period_that_is_over_is_final(room: Room, caller: Identity) -> None:
    start, end = Timestamp(), Timestamp()
    start.FromDatetime(datetime(2026, 2, 1, tzinfo=UTC))
    end.FromDatetime(datetime(2026, 3, 1, tzinfo=UTC))
    drawn = await invoice(room, caller.tenant_id, start_time=start, end_time=end)
    assert (drawn.final, list(drawn.lines), drawn.number) == (True, [], f"{caller.tenant_id}-2026020100-2026030100")


async def test_there_is_none_of_an_unknown_or_of_anothers_tenant(room: Room, caller: Identity) -> None:
    stranger = Identity("somebody-else", "key-2", frozenset({"finance"}), "req")
    for tenant_id, person in (("nobody", ADMIN), (caller.tenant_id, stranger)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await invoice(room, tenant_id, person)
        assert error_reason(caught.value) == "RESOURCE_NOT_FOUND"
