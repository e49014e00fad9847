"""Margins: charged everywhere, told to those who run the mesh, never rewritten."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.billing.v1 import billing_pb2, prices_pb2, reports_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import ADMIN, RUBLE, TOKENS_PER_RUBLE, Room, refusal

_numbers = count()
KNOWN_SECONDS = 20
# An unrounded share of every row is a margin: this finds rows for which it is not, whatever was billed of them.
NOT_BALANCED = """
SELECT count(*) FROM ledger WHERE NOT correction AND cache_status = 'miss' AND margin_micros <>
    ceil((cost_micros + overrun_micros - margin_micros) * CAST(margin_points AS numeric) / 10000)
"""


@pytest.fixture
async def caller(room: Room) -> Identity:
    """A developer of a new tenant with ten rubles, charged a fifth more than is taken."""
    caller = await room.tenant(f"margin-{next(_numbers)}", rubles=10)
    await add_margin(room, caller, 2000)
    return caller


def finance(caller: Identity) -> Identity:
    return Identity(caller.tenant_id, "key-2", frozenset({"finance"}), "req")


async def create(room: Room, caller: Identity, **fields: Any) -> prices_pb2.Margin:
    with acting_as(ADMIN):
        request = prices_pb2.CreateMarginRequest(tenant_id=caller.tenant_id, **fields)
        return (await room.prices.CreateMargin(request)).margin


async def add_margin(room: Room, caller: Identity, points: int) -> None:
    """Returns when the room charges it."""
    await create(room, caller, basis_points=points)
    async with asyncio.timeout(KNOWN_SECONDS):
        while True:
            held = await room.reserve(caller, f"probe-{next(_numbers)}", input_tokens=TOKENS_PER_RUBLE // 100)
            await room.cancel(caller, held)
            if held.amount_micros == RUBLE // 100 * (10_000 + points) // 10_000:
                return


async def report(room: Room, caller: Identity, person: Identity = ADMIN, **fields: Any) -> reports_pb2.Report:
    with acting_as(person):
        request = reports_pb2.GetReportRequest(tenant_id=caller.tenant_id, **fields)
        return (await room.reports.GetReport(request)).report


def at(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


async def test_a_margin_is_held_charged_and_counted_in_budgets(room: Room, caller: Identity) -> None:
    reservation = await room.reserve(caller, "r1", input_tokens=3 * TOKENS_PER_RUBLE)
    assert reservation.amount_micros == 3_600_000
    settled = await room.commit(caller, reservation, input_tokens=2 * TOKENS_PER_RUBLE)
    assert settled.cost_micros == (await room.budget(caller)).spent_micros == 2_400_000
    [row] = await room.usage(caller)
    assert (row.cost_micros, row.provider_micros, row.margin_basis_points) == (2_400_000, 2_000_000, 2000)
    # Without the margin there would be room for seven rubles more.
    assert (await refusal(room.reserve(caller, "r2", input_tokens=7 * TOKENS_PER_RUBLE)))[0] == "BUDGET_EXCEEDED"


async def test_a_hard_budget_is_kept_whatever_the_margin(room: Room, caller: Identity) -> None:
    """Ten rubles bear 8.333333 taken: what was used beyond is an overrun, margin included."""
    await room.commit(caller, await room.reserve(caller, "r1"), input_tokens=9 * TOKENS_PER_RUBLE)
    [row] = await room.usage(caller)
    assert (row.cost_micros, row.overrun_micros, row.provider_micros) == (10 * RUBLE, 800_000, 9 * RUBLE)
    total = (await report(room, caller)).total
    assert (total.provider_micros, total.margin_micros) == (9 * RUBLE, RUBLE)


async def test_reports_tell_cost_and_margin_apart_and_their_savings_include_it(room: Room, caller: Identity) -> None:
    await room.commit(caller, await room.reserve(caller, "r1"))
    found = await report(room, caller, baseline_deployment="cloud/large")
    assert (found.total.cost_micros, found.total.provider_micros, found.total.margin_micros) == (
        1_200_000, 1_000_000, 200_000
    )  # fmt: skip
    assert [(line.name, line.margin_micros) for line in found.by_deployment] == [("local/small", 200_000)]
    # The same tokens would have cost 8 rubles at the baseline: 9.6 with the margin.
    assert (found.savings.baseline_micros, found.savings.routing_micros) == (9_600_000, 8_400_000)


async def test_an_invoice_is_about_what_is_charged(room: Room, caller: Identity) -> None:
    await room.commit(caller, await room.reserve(caller, "r1"))
    with acting_as(finance(caller)):
        invoice = (await room.reports.GetInvoice(reports_pb2.GetInvoiceRequest(tenant_id=caller.tenant_id))).invoice
    assert (invoice.total_micros, invoice.payable_micros) == (1_200_000, 1_200_000)


async def test_a_tenant_is_not_told_what_providers_take_of_it(room: Room, caller: Identity) -> None:
    await room.commit(caller, await room.reserve(caller, "r1"))
    own = finance(caller)
    with acting_as(own):
        asked = billing_pb2.ListUsageRecordsRequest(tenant_id=caller.tenant_id)
        [row] = (await room.billing.ListUsageRecords(asked)).records
        table = await room.reports.ExportReport(reports_pb2.ExportReportRequest(tenant_id=caller.tenant_id))
        margins = prices_pb2.ListMarginsRequest(tenant_id=caller.tenant_id)
        assert (await refusal(room.prices.ListMargins(margins)))[0] == "ROLE_MISSING"
    line = (await report(room, caller, own)).total
    assert line.cost_micros == row.cost_micros == 1_200_000
    assert not any(each.HasField("provider_micros") for each in (row, line))
    assert not row.HasField("margin_basis_points")
    assert not line.HasField("margin_micros")
    assert b"margin" not in table.data


async def test_a_running_request_keeps_the_margin_it_was_reserved_with(room: Room, caller: Identity) -> None:
    reservation = await room.reserve(caller, "r1")
    await add_margin(room, caller, -5000)
    extension = billing_pb2.ExtendReservationRequest(
        reservation_id=reservation.id, deployments=["local/small"], input_tokens=2 * TOKENS_PER_RUBLE
    )
    with acting_as(caller):
        extended = (await room.billing.ExtendReservation(extension)).reservation
    assert extended.amount_micros == 2_400_000
    repeated = await room.reserve(caller, "r1")
    assert (await room.commit(caller, repeated, input_tokens=TOKENS_PER_RUBLE)).cost_micros == 1_200_000
    later = await room.commit(caller, await room.reserve(caller, "r2"))
    assert later.cost_micros == 500_000
    with room.database() as database:
        assert database.execute(NOT_BALANCED).fetchall() == [(0,)]


async def test_a_correction_and_a_cached_answer_have_the_margin_too(room: Room, caller: Identity) -> None:
    reservation = await room.reserve(caller, "r1")
    await room.commit(caller, reservation, input_tokens=TOKENS_PER_RUBLE, estimated=True)
    hit = billing_pb2.UsageRecord(
        request_id="h1", tenant_id=caller.tenant_id, key_id=caller.key_id, model="small", deployment="local/small",
        provider="local", cache_status="exact", usage=chat_pb2.TokenUsage(input_tokens=TOKENS_PER_RUBLE),
    )  # fmt: skip
    usage = chat_pb2.TokenUsage(input_tokens=TOKENS_PER_RUBLE // 2)
    correction = billing_pb2.CorrectUsageRequest(tenant_id=caller.tenant_id, request_id="r1", usage=usage)
    with acting_as(ADMIN):
        await room.billing.RecordUsage(billing_pb2.RecordUsageRequest(records=[hit]))
        row = (await room.billing.CorrectUsage(correction)).correction
    assert (row.cost_micros, row.provider_micros) == (-600_000, -500_000)
    total = (await report(room, caller)).total
    assert (total.cost_micros, total.provider_micros, total.saved_micros) == (600_000, 500_000, 1_200_000)


async def test_margins_are_listed_by_date_and_history_is_never_rewritten(room: Room, caller: Identity) -> None:
    tomorrow = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    await create(room, caller, basis_points=-100, effective_time=at(tomorrow))
    past = create(room, caller, basis_points=5, effective_time=at(tomorrow - timedelta(days=2)))
    assert await refusal(past) == ("FIELD_INVALID", "effective_time")
    again = create(room, caller, basis_points=5, effective_time=at(tomorrow))
    assert (await refusal(again))[0] == "RESOURCE_EXISTS"
    absurd = create(room, caller, basis_points=-10_001)
    assert await refusal(absurd) == ("FIELD_INVALID", "basis_points")
    first = await page(room, caller)
    second = await page(room, caller, page_token=first.next_page_token)
    assert [margin.basis_points for margin in (*first.margins, *second.margins)] == [2000, -100]
    other = await room.tenant(f"margin-{next(_numbers)}")
    foreign = page(room, other, page_token=first.next_page_token)
    assert await refusal(foreign) == ("FIELD_INVALID", "page_token")


async def page(room: Room, caller: Identity, page_token: str = "") -> prices_pb2.ListMarginsResponse:
    request = prices_pb2.ListMarginsRequest(tenant_id=caller.tenant_id, page_size=1, page_token=page_token)
    with acting_as(ADMIN):
        return await room.prices.ListMargins(request)


async def test_a_margin_asked_for_twice_is_added_once(room: Room) -> None:
    caller = await room.tenant(f"margin-{next(_numbers)}")
    request_id = str(uuid.uuid4())
    first = await create(room, caller, basis_points=300, request_id=request_id)
    assert await create(room, caller, basis_points=300, request_id=request_id) == first
    assert (await refusal(create(room, caller, basis_points=301, request_id=request_id)))[0] == "REQUEST_CONFLICT"
    assert len((await page(room, caller)).margins) == 1


async def test_nobody_has_a_margin_who_is_not_there(room: Room) -> None:
    assert (await refusal(create(room, Identity("no-such-tenant", "k")))) == ("RESOURCE_NOT_FOUND", None)


async def test_finance_cannot_set_its_own_margin(room: Room, caller: Identity) -> None:
    request = prices_pb2.CreateMarginRequest(tenant_id=caller.tenant_id, basis_points=-10_000)
    with acting_as(finance(caller)), pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.prices.CreateMargin(request)
    assert error_reason(caught.value) == "ROLE_MISSING"
