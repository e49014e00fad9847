"""Reports say what the ledger says, rolled up or not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.billing.v1 import billing_pb2, reports_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from services.billing.app import billing
from services.billing.config import BillingConfig
from services.billing.database.engine import Database
from services.billing.database.rollups import Rollup, RollupsAhead
from services.billing.database.wire import Wire
from tests.room.billing.conftest import Configure
from tests.support.billing_room import ADMIN, RUBLE, TOKENS_PER_RUBLE, Room, billing_room

_numbers = count()
SUMS = "SELECT count(*), coalesce(sum(cost_micros), 0)::bigint FROM ledger WHERE tenant_id = %s"
ROLLED = "SELECT coalesce(sum(request_count), 0)::bigint FROM usage_rollups WHERE tenant_id = %s AND span = %s"


async def report(room: Room, tenant_id: str, **fields: Any) -> reports_pb2.Report:
    with acting_as(ADMIN):
        return (await room.reports.GetReport(reports_pb2.GetReportRequest(tenant_id=tenant_id, **fields))).report


async def spend(room: Room, caller: Identity, request_id: str, deployment: str = "local/small") -> None:
    reservation = await room.reserve(caller, request_id, deployments=(deployment,))
    await room.commit(caller, reservation, deployment)


async def hit(room: Room, caller: Identity, request_id: str) -> None:
    record = billing_pb2.UsageRecord(
        request_id=request_id, tenant_id=caller.tenant_id, key_id=caller.key_id, model="small",
        deployment="local/small", provider="local", cache_status="exact",
        usage=chat_pb2.TokenUsage(input_tokens=TOKENS_PER_RUBLE),
    )  # fmt: skip
    with acting_as(ADMIN):
        await room.billing.RecordUsage(billing_pb2.RecordUsageRequest(records=[record]))


def seen(room: Room, statement: str, *parameters: object) -> tuple[int, ...]:
    with room.database() as database:
        [row] = database.execute(statement.encode(), parameters).fetchall()
    return tuple(row)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(holds):
            pass


def sums(line: reports_pb2.ReportLine) -> tuple[int, int]:
    return line.request_count, line.cost_micros


async def test_a_report_sums_to_the_ledger_before_and_after_it_is_rolled_up(
    configure: Configure, fresh_books: str
) -> None:
    async with billing_room(configure(fresh_books, rollup_seconds=3600)) as slow:
        caller = await slow.tenant("acme")
        for number in range(3):
            await spend(slow, caller, f"r{number}")
        await hit(slow, caller, "h0")
        assert seen(slow, ROLLED, "acme", "hour") == (0,)
        before = await report(slow, "acme")
        assert sums(before.total) == seen(slow, SUMS, "acme") == (4, 3 * RUBLE)
    async with billing_room(configure(fresh_books, rollup_seconds=0.05)) as quick:
        await until(lambda: seen(quick, ROLLED, "acme", "month") == (4,))
        await spend(quick, caller, "r3")
        after = await report(quick, "acme")
        assert sums(after.total) == seen(quick, SUMS, "acme") == (5, 4 * RUBLE)
        assert (after.total.cached_count, after.total.saved_micros) == (1, RUBLE)
        await until(lambda: seen(quick, ROLLED, "acme", "day") == (5,))
        assert sums((await report(quick, "acme")).total) == (5, 4 * RUBLE)


ELSEWHERE = """
SET session_replication_role = replica;
UPDATE ledger SET transaction_id = transaction_id + 1000000000;
UPDATE rollup_progress SET before_id = before_id + 1000000000;
"""
"""Makes books such as come out of a dump of a cluster that has counted more transactions."""
DOCUMENT = Path(__file__).parents[3] / "docs" / "billing.md"
HOW_TO_GO_ON = re.compile(r"^```sql\n(BEGIN;\n.*?)^```$", re.MULTILINE | re.DOTALL)


async def serve(config: BillingConfig) -> None:
    async with billing(config):
        await asyncio.Event().wait()


async def test_books_out_of_a_dump_are_refused_until_they_count_as_their_cluster_does(
    configure: Configure, fresh_books: str
) -> None:
    quick, slow = (configure(fresh_books, rollup_seconds=seconds) for seconds in (0.05, 3600))
    async with billing_room(quick) as room:
        caller = await room.tenant("acme")
        await spend(room, caller, "r1")
        await until(lambda: seen(room, ROLLED, "acme", "month") == (1,))
    async with billing_room(slow) as room:
        await spend(room, caller, "r2")
        with room.database() as database:
            database.execute(ELSEWHERE)
    with pytest.raises(RollupsAhead):
        await serve(slow)
    [statements] = HOW_TO_GO_ON.findall(DOCUMENT.read_text())
    with psycopg.connect(fresh_books.replace("+psycopg", ""), autocommit=True) as database:
        database.execute(statements)
    async with billing_room(slow) as room:
        assert sums((await report(room, "acme")).total) == (2, 2 * RUBLE)
    async with billing_room(quick) as room:
        await spend(room, caller, "r3")
        await until(lambda: seen(room, ROLLED, "acme", "month") == (3,))
        assert sums((await report(room, "acme")).total) == seen(room, SUMS, "acme") == (3, 3 * RUBLE)


@asynccontextmanager
async def replicas(url: str, number: int) -> AsyncIterator[list[Rollup]]:
    """As many writers of sums, each with a connection of its own."""
    database = Database(url, seconds=20, connections=1)
    database.open()
    wires = [Wire(database, seconds=20) for _ in range(number)]
    yield [Rollup(wire) for wire in wires]
    for wire in wires:
        await wire.close()
    await database.close()


async def test_replicas_that_sum_up_at_once_count_every_row_once(configure: Configure, fresh_books: str) -> None:
    async with billing_room(configure(fresh_books, rollup_seconds=3600)) as room, replicas(fresh_books, 4) as writers:
        caller = await room.tenant("acme", rubles=1000)
        written = asyncio.Event()

        async def write() -> None:
            for number in range(200):
                await hit(room, caller, f"h{number}")
            written.set()

        async def sum_up(writer: Rollup) -> None:
            while not written.is_set():
                await writer.run()

        await asyncio.gather(write(), *map(sum_up, writers))
        await writers[0].run()
        assert [seen(room, ROLLED, "acme", span) for span in ("hour", "day", "month")] == [(200,)] * 3
        assert (await report(room, "acme")).total.cached_count == 200


YESTERDAY = """
INSERT INTO ledger (tenant_id, request_id, key_id, model, deployment, provider, cache_status, input_tokens,
    cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_micros, saved_micros,
    currency_code, finish_reason, create_time)
SELECT id, 'yesterday', 'k', 'm', 'd', 'p', 'miss', 0, 0, 0, 0, 0, false, %s, 0, 'RUB', 'stop',
    now() - interval '1 day' FROM tenants
"""


async def test_an_hour_that_costs_far_more_than_yesterday_is_told_once(configure: Configure, fresh_books: str) -> None:
    async with billing_room(configure(fresh_books, rollup_seconds=0.05)) as room:
        dear, usual = await room.tenant("dear"), await room.tenant("usual")
        with room.database() as database:
            database.execute(YESTERDAY, [RUBLE])
        await spend(room, usual, "r1")
        for number in range(4):
            await spend(room, dear, f"r{number}")
            await until(lambda number=number: seen(room, ROLLED, "dear", "hour") == (number + 2,))
        with room.database() as database:
            told = database.execute("SELECT tenant_id, severity, title FROM alerts WHERE kind = 'cost'").fetchall()
        [(tenant_id, severity, title)] = told
        assert (tenant_id, severity) == ("dear", "high")
        assert title in {f"dear spends {times} times what it did at this hour yesterday" for times in ("2.0", "3.0")}
        hours = (await report(room, "dear", start_time=yesterday())).hours
        assert [(hour.cost_micros, hour.anomalous) for hour in hours] == [(RUBLE, False), (4 * RUBLE, True)]


def yesterday() -> Timestamp:
    start = Timestamp()
    start.FromDatetime(datetime.now(UTC) - timedelta(days=1))
    return start


async def test_a_report_breaks_down_by_every_level(room: Room) -> None:
    caller = await room.tenant(f"report-{next(_numbers)}")
    request = tenant_pb2.CreateKeyRequest(tenant_id=caller.tenant_id, team_id="research", tags=["chatbot", "beta"])
    with acting_as(ADMIN):
        key_id = (await room.tenants.CreateKey(request)).key.id
    await spend(room, Identity(caller.tenant_id, key_id, caller.roles, "req"), "r1")
    await spend(room, caller, "r2", "cloud/large")
    found = await report(room, caller.tenant_id)
    dear, cheap = 8 * RUBLE, RUBLE
    assert [(line.name, line.cost_micros) for line in found.by_provider] == [("cloud", dear), ("local", cheap)]
    assert [(line.name, line.cost_micros) for line in found.by_team] == [("", dear), ("research", cheap)]
    assert [(line.name, line.cost_micros) for line in found.by_key] == [("key-1", dear), (key_id, cheap)]
    assert {(line.name, line.cost_micros) for line in found.by_tag} == {("chatbot", cheap), ("beta", cheap)}
    assert [line.name for line in found.by_deployment] == ["cloud/large", "local/small"]
    assert [(hour.cost_micros, hour.request_count) for hour in found.hours] == [(dear + cheap, 2)]
    assert found.forecast_micros >= found.total.cost_micros == dear + cheap


async def test_savings_are_told_against_the_deployment_asked_for(room: Room) -> None:
    caller = await room.tenant(f"report-{next(_numbers)}")
    await spend(room, caller, "r1")
    savings = (await report(room, caller.tenant_id, baseline_deployment="cloud/large")).savings
    assert (savings.baseline_deployment, savings.baseline_micros) == ("cloud/large", 8 * RUBLE)
    assert savings.total_micros == savings.routing_micros == 7 * RUBLE


async def test_a_report_comes_as_a_table_and_as_a_chart(room: Room) -> None:
    caller = await room.tenant(f"report-{next(_numbers)}")
    await spend(room, caller, "r1")
    request = reports_pb2.ExportReportRequest(tenant_id=caller.tenant_id)
    with acting_as(ADMIN):
        table = await room.reports.ExportReport(request)
        request.format = reports_pb2.REPORT_FORMAT_SVG
        chart = await room.reports.ExportReport(request)
        request.format = reports_pb2.REPORT_FORMAT_PNG
        picture = await room.reports.ExportReport(request)
    assert table.data.splitlines()[1] == b"total,,1,0,10000,0,1,0,0,RUB,1,0"
    assert (chart.content_type, chart.data[:4]) == ("image/svg+xml", b"<svg")
    assert (picture.content_type, picture.data[:8]) == ("image/png", b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        (
            {"start_time": {"seconds": 1_790_000_000}, "end_time": {"seconds": 1_780_000_000}},
            "FIELD_INVALID",
            "end_time",
        ),
        ({"start_time": {"seconds": 0}, "end_time": {"seconds": 1_790_000_000}}, "FIELD_INVALID", "end_time"),
        ({"start_time": {"seconds": 253_402_000_000}}, "FIELD_INVALID", "start_time"),
        ({"end_time": {"seconds": 253_402_300_799}}, "FIELD_INVALID", "end_time"),
        ({"baseline_deployment": "no/price"}, "RESOURCE_NOT_FOUND", None),
        ({"tenant_id": "no-such-tenant"}, "RESOURCE_NOT_FOUND", None),
    ],
)
async def test_a_report_that_cannot_be_made_says_why(
    room: Room, fields: dict[str, Any], reason: str, field: str | None
) -> None:
    caller = await room.tenant(f"report-{next(_numbers)}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await report(room, **{"tenant_id": caller.tenant_id, **fields})
    info = error_info(caught.value)
    assert info
    assert (info.reason, info.metadata.get("field")) == (reason, field)


async def test_a_report_of_another_tenant_is_not_found(room: Room) -> None:
    caller = await room.tenant(f"report-{next(_numbers)}")
    stranger = Identity(f"report-{next(_numbers)}", "k", frozenset({"finance"}), "req")
    with acting_as(stranger), pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.reports.GetReport(reports_pb2.GetReportRequest(tenant_id=caller.tenant_id))
    assert error_reason(caught.value) == "RESOURCE_NOT_FOUND"
