"""Late usage corrects an estimate, and every sum of the books says so."""

from __future__ import annotations

import asyncio
from itertools import count

import grpc
import pytest

from llmmesh.billing.v1 import billing_pb2, reports_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from tests.room.billing.conftest import awaited
from tests.support.billing_room import ADMIN, RUBLE, TOKENS_PER_RUBLE, Room
from tests.support.waiting import until

_numbers = count()
LOCK = "SELECT 1 FROM tenants WHERE id = %s FOR NO KEY UPDATE"
NEW_PERIOD = "UPDATE budgets SET period_start = clock_timestamp(), spent_micros = 0 WHERE tenant_id = %s"
SPENT_AND_WRITTEN = """
SELECT spent_micros, (SELECT sum(cost_micros)::bigint FROM ledger
    WHERE ledger.tenant_id = budgets.tenant_id AND create_time >= period_start)
FROM budgets WHERE tenant_id = %s
"""


@pytest.fixture
async def caller(room: Room) -> Identity:
    """A developer of a new tenant with ten rubles."""
    return await room.tenant(f"corrected-{next(_numbers)}", rubles=10)


async def estimated(room: Room, caller: Identity, request_id: str, rubles: int) -> None:
    """A request whose caller hung up: billed by what was counted."""
    reservation = await room.reserve(caller, request_id)
    await room.commit(caller, reservation, input_tokens=rubles * TOKENS_PER_RUBLE, estimated=True)


async def correct(
    room: Room, caller: Identity, request_id: str, rubles: int, *, person: Identity = ADMIN, **usage: int
) -> billing_pb2.UsageRecord:
    request = billing_pb2.CorrectUsageRequest(
        tenant_id=caller.tenant_id,
        request_id=request_id,
        usage=chat_pb2.TokenUsage(**(usage or {"input_tokens": rubles * TOKENS_PER_RUBLE})),
    )
    with acting_as(person):
        return (await room.billing.CorrectUsage(request)).correction


async def refused(room: Room, caller: Identity, request_id: str, person: Identity = ADMIN, **usage: int) -> str | None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await correct(room, caller, request_id, 1, person=person, **usage)
    return error_reason(caught.value)


async def sums(room: Room, caller: Identity) -> set[tuple[int, int]]:
    """Requests and cost, as ledger, settled requests, budget, report, its hours and summary say."""
    with acting_as(ADMIN):
        report = (await room.reports.GetReport(reports_pb2.GetReportRequest(tenant_id=caller.tenant_id))).report
        asked = billing_pb2.GetUsageSummaryRequest(tenant_id=caller.tenant_id)
        summary = (await room.billing.GetUsageSummary(asked)).total
    rows = await room.usage(caller)
    with room.database() as database:
        statement = "SELECT sum(cost_micros) FROM billed_requests WHERE tenant_id = %s"
        [(settled,)] = database.execute(statement, [caller.tenant_id]).fetchall()
    requests = sum(not row.correction for row in rows)
    return {
        (requests, sum(row.cost_micros for row in rows)),
        (requests, int(settled)),
        (requests, (await room.budget(caller)).spent_micros),
        (report.total.request_count, report.total.cost_micros),
        (sum(hour.request_count for hour in report.hours), sum(hour.cost_micros for hour in report.hours)),
        (summary.request_count, summary.cost_micros),
    }


async def test_what_was_not_used_is_given_back_by_a_row_of_its_own(room: Room, caller: Identity) -> None:
    await estimated(room, caller, "r1", 3)
    await estimated(room, caller, "r2", 2)
    correction = await correct(room, caller, "r1", 1)
    assert (correction.request_id, correction.correction) == ("r1:correction", True)
    assert (correction.cost_micros, correction.usage.input_tokens) == (-2 * RUBLE, -2 * TOKENS_PER_RUBLE)
    assert [(row.request_id, row.cost_micros) for row in await room.usage(caller)] == [
        ("r1:correction", -2 * RUBLE), ("r2", 2 * RUBLE), ("r1", 3 * RUBLE)
    ]  # fmt: skip
    assert await sums(room, caller) == {(2, 3 * RUBLE)}


async def test_what_was_used_beyond_the_estimate_is_billed_as_far_as_budgets_bear_it(
    room: Room, caller: Identity
) -> None:
    await estimated(room, caller, "r1", 8)
    correction = await correct(room, caller, "r1", 13)
    assert (correction.cost_micros, correction.overrun_micros) == (2 * RUBLE, 3 * RUBLE)
    assert await sums(room, caller) == {(1, 10 * RUBLE)}


async def test_a_correction_bills_no_more_than_the_request_may_cost(room: Room, caller: Identity) -> None:
    request = billing_pb2.CreateReservationRequest(
        request_id="r1", model="small", deployments=["local/small"], input_tokens=TOKENS_PER_RUBLE,
        max_cost_micros=4 * RUBLE,
    )  # fmt: skip
    with acting_as(caller):
        reservation = (await room.billing.CreateReservation(request)).reservation
    await room.commit(caller, reservation, input_tokens=3 * TOKENS_PER_RUBLE, estimated=True)
    correction = await correct(room, caller, "r1", 6)
    assert (correction.cost_micros, correction.overrun_micros) == (RUBLE, 2 * RUBLE)
    assert await sums(room, caller) == {(1, 4 * RUBLE)}


async def test_an_overrun_is_given_back_first(room: Room, caller: Identity) -> None:
    await estimated(room, caller, "r1", 12)
    correction = await correct(room, caller, "r1", 9)
    assert (correction.cost_micros, correction.overrun_micros) == (-1 * RUBLE, -2 * RUBLE)
    assert await sums(room, caller) == {(1, 9 * RUBLE)}


async def test_what_is_given_back_can_be_spent(room: Room, caller: Identity) -> None:
    await estimated(room, caller, "r1", 10)
    with pytest.raises(grpc.aio.AioRpcError):
        await room.reserve(caller, "r2")
    await correct(room, caller, "r1", 9)
    await room.reserve(caller, "r2")


async def test_a_repeat_returns_the_first_correction(room: Room, caller: Identity) -> None:
    await estimated(room, caller, "r1", 3)
    first = await correct(room, caller, "r1", 1)
    assert await correct(room, caller, "r1", 1) == await correct(room, caller, "r1", 7) == first
    assert await sums(room, caller) == {(1, RUBLE)}


async def test_a_correction_that_waited_into_a_new_period_is_written_in_the_period_it_counts_in(
    room: Room, caller: Identity
) -> None:
    await estimated(room, caller, "r1", 1)
    with room.database() as database:
        with database.transaction():
            database.execute(LOCK, [caller.tenant_id])
            correcting = asyncio.create_task(correct(room, caller, "r1", 3))
            await until(lambda: asyncio.to_thread(awaited, database))
            database.execute(NEW_PERIOD, [caller.tenant_id])
        await correcting
        assert database.execute(SPENT_AND_WRITTEN, [caller.tenant_id]).fetchall() == [(2 * RUBLE, 2 * RUBLE)]


async def test_only_estimates_are_corrected_and_by_real_figures(room: Room, caller: Identity) -> None:
    await room.commit(caller, await room.reserve(caller, "exact"))
    await estimated(room, caller, "r1", 3)
    await correct(room, caller, "r1", 1)
    assert await refused(room, caller, "exact") == "RESERVATION_CONFLICT"
    assert await refused(room, caller, "r1:correction") == "RESERVATION_CONFLICT"
    assert await refused(room, caller, "never") == "RESOURCE_NOT_FOUND"
    assert await refused(room, caller, "r1", input_tokens=1, estimated=True) == "FIELD_INVALID"
    assert await refused(room, caller, "r1", input_tokens=-1) == "FIELD_INVALID"


async def test_another_tenants_rows_are_nobodys_business(room: Room, caller: Identity) -> None:
    await estimated(room, caller, "r1", 3)
    stranger = Identity("somebody-else", "key-2", frozenset({"finance"}), "req")
    assert await refused(room, caller, "r1", stranger) == "RESOURCE_NOT_FOUND"
