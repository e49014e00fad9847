"""Billing alone, as a process of its own on a Postgres of its own with fsync on."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.billing.v1 import billing_pb2, reports_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from services.billing.config import BillingConfig
from services.gateway.policies import PolicyTable
from tests.load.busy import Busy
from tests.load.figure import Figure, at_least, at_most, console
from tests.support.billing_room import ADMIN, PRICES, Room, billing_stubs
from tests.support.fix_postgres import postgres_servers
from tests.support.ports import free_port

CALLERS = 64
SECONDS = 6.0
BATCH = 1000
ROWS = 5_000_000
ROWS_AT_ONCE = 500_000
DAYS = 90
REPORTS = 60
START_SECONDS = 60
ROLLUP_SECONDS = 120

MONTHS = """
SELECT add_ledger_month(date_trunc('month', now(), 'UTC') - make_interval(months => back))
FROM generate_series(1, 4) AS back
"""
GENERATE = f"""
INSERT INTO ledger (tenant_id, request_id, key_id, team_id, tags, model, deployment, provider, cache_status,
    input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_micros,
    saved_micros, currency_code, finish_reason, create_time)
SELECT 'large', 'generated-' || n, 'key-' || key, 'team-' || key %% 10, ARRAY['tag-' || key %% 3],
    'model-' || key %% 4, 'deployment-' || key %% 4, 'provider-' || key %% 2,
    CASE WHEN cached THEN 'exact' ELSE 'miss' END, 500, 0, 0, 200, 0, false,
    CASE WHEN cached THEN 0 ELSE 1000 END, CASE WHEN cached THEN 1000 ELSE 0 END, 'RUB', 'stop',
    now() - interval '{DAYS} days' * (1 - n::float / %(rows)s)
FROM generate_series(%(first)s::int, %(last)s) AS n,
    LATERAL (SELECT n %% 41 AS key, n %% 5 < 2 AS cached) AS row
"""
"""Rows of one tenant with 41 keys in the order of their times, as they would have come."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Billing, and the processes it takes."""

    room: Room
    pids: dict[str, int]


async def billing_figures() -> list[Figure]:
    """Reservations, ingestion, reports over many rows, and the policy lookup of the gateway."""
    figures = []
    async with _billing() as bench:
        for measure in (_pairs, _crowd, _ingestion, _reports):
            figures.append(await measure(bench))
            console.log(f"{figures[-1].name}: {figures[-1].value:g} {figures[-1].unit}")
    return [*figures, await _lookup()]


@asynccontextmanager
async def _billing() -> AsyncIterator[Bench]:
    with postgres_servers() as make, tempfile.TemporaryDirectory() as folder:
        server = make()
        prices = Path(folder) / "prices.yaml"
        prices.write_text(PRICES)
        config = BillingConfig(
            database_url=server.url(server.create_database()),
            signing_key_file=Path(folder) / "key.json",
            prices=prices,
            # A busy machine should show a bad figure, not none.
            database_seconds=30,
            listen=f"127.0.0.1:{free_port()}",
            metrics_listen="",
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.billing", env=_environment(config), stdout=-3, stderr=-3
        )
        assert server.process
        pids = {"billing": process.pid, "Postgres": server.process.pid, "callers": os.getpid()}
        try:
            async with billing_stubs(int(config.listen.rpartition(":")[2]), config, wait_seconds=START_SECONDS) as room:
                await room.becomes(serving=True)
                yield Bench(room, pids)
        finally:
            process.terminate()
            await process.wait()


def _environment(config: BillingConfig) -> dict[str, str]:
    set_here = {
        name: getattr(value, "get_secret_value", lambda value=value: value)()
        for name, value in config
        if name in config.model_fields_set
    }
    return {**os.environ, **{f"LLMMESH_BILLING_{name.upper()}": str(value) for name, value in set_here.items()}}


async def _pairs(bench: Bench) -> Figure:
    """Callers of one tenant, as fast as they can, each request billed for half of what it holds."""
    caller = await bench.room.tenant("hot", rubles=10**6)
    done = 0
    until = time.perf_counter() + SECONDS

    async def spend(number: int) -> None:
        nonlocal done
        turn = 0
        while time.perf_counter() < until:
            reservation = await bench.room.reserve(caller, f"{number}-{turn}", input_tokens=100)
            await bench.room.commit(caller, reservation, input_tokens=50)
            done, turn = done + 1, turn + 1

    busy = Busy({name: pid for name, pid in bench.pids.items() if name != "callers"})
    mine = time.process_time()
    await asyncio.gather(*(spend(number) for number in range(CALLERS)))
    mine = (time.process_time() - mine) * 1000 / done
    await _check_books(bench.room, caller, done)
    detail = f"{CALLERS} callers, one tenant; CPU of a pair {busy.milliseconds_per(done)}, callers {mine:.2f}"
    return at_least("reserve and settle, pairs", done / SECONDS, "pairs/s", 500, detail)


async def _check_books(room: Room, caller: Identity, requests: int) -> None:
    """Nothing is held any more, and what is spent is what the ledger says of as many rows."""
    budget = await room.budget(caller)
    with room.database() as database:
        statement = "SELECT count(*), sum(cost_micros) FROM ledger WHERE tenant_id = %s"
        [(rows, billed)] = database.execute(statement, [caller.tenant_id]).fetchall()
    assert (rows, billed, budget.reserved_micros) == (requests, budget.spent_micros, 0)


async def _crowd(bench: Bench) -> Figure:
    """Many at once against a budget that is not enough for all."""
    caller = await bench.room.tenant("limited", rubles=100)
    started = time.perf_counter()
    asked = [bench.room.reserve(caller, f"r{number}") for number in range(1000)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    seconds = time.perf_counter() - started
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert {error_reason(error) for error in refused} == {"BUDGET_EXCEEDED"}
    passed = 1000 - len(refused)
    name = "of 1,000 at once against a budget for 100, passed"
    return Figure(name, passed, "", "100", passed == 100, f"in {seconds:.1f} s")


async def _ingestion(bench: Bench) -> Figure:
    """Cache hits in the batches that gateways send."""
    await bench.room.tenant("cached")
    written = 0
    busy = Busy({name: pid for name, pid in bench.pids.items() if name != "callers"})
    until = time.perf_counter() + SECONDS

    async def write(worker: int) -> None:
        nonlocal written
        turn = 0
        while time.perf_counter() < until:
            with acting_as(ADMIN):
                await bench.room.billing.RecordUsage(_hits(f"{worker}-{turn}"))
            written, turn = written + BATCH, turn + 1

    await asyncio.gather(*(write(worker) for worker in range(4)))
    detail = f"generator included; CPU of 1,000 rows {busy.milliseconds_per(written // 1000)}"
    return at_least("ledger rows of cached answers", written / SECONDS, "rows/s", 10_000, detail)


def _hits(name: str) -> billing_pb2.RecordUsageRequest:
    now = Timestamp()
    now.GetCurrentTime()
    usage = chat_pb2.TokenUsage(input_tokens=500, output_tokens=200)
    records = [
        billing_pb2.UsageRecord(
            request_id=f"{name}-{number}", tenant_id="cached", key_id="k", model="small", provider="local",
            deployment="local/small", cache_status="exact", usage=usage, create_time=now,
        )
        for number in range(BATCH)
    ]  # fmt: skip
    return billing_pb2.RecordUsageRequest(records=records)


async def _reports(bench: Bench) -> Figure:
    """Reports over all rows and over parts that begin in the middle of a day and of a month."""
    await bench.room.tenant("large")
    seconds = await asyncio.to_thread(_generate, bench.room)
    now = datetime.now(UTC)
    times = []
    for number in range(REPORTS):
        start = now - timedelta(days=DAYS + 1, hours=-11 * (number % 6))
        request = reports_pb2.GetReportRequest(tenant_id="large", start_time=start, end_time=now)
        started = time.perf_counter()
        with acting_as(ADMIN):
            report = (await bench.room.reports.GetReport(request)).report
        times.append((time.perf_counter() - started) * 1000)
        assert number % 6 or report.total.request_count == ROWS
    p95 = statistics.quantiles(times, n=20)[-1]
    detail = f"{ROWS:,} rows, p50 {statistics.median(times):.0f} ms; written and rolled up in {seconds:.0f} s"
    return at_most(f"report of {DAYS} days, p95", p95, "ms", 300, detail)


def _generate(room: Room) -> float:
    """Fill the ledger; returns the seconds until every row of it was rolled up, by the room itself."""
    started = time.perf_counter()
    with room.database() as database:
        database.execute("SET synchronous_commit = off")
        database.execute(MONTHS)
        for first in range(0, ROWS, ROWS_AT_ONCE):
            last = first + ROWS_AT_ONCE - 1
            database.execute(GENERATE.encode(), {"rows": ROWS, "first": first, "last": last})
            console.log(f"{last + 1:,} ledger rows, {_rolled_up(database):,} rolled up")
        database.execute("ANALYZE")
        until = time.perf_counter() + ROLLUP_SECONDS
        while (done := _rolled_up(database)) < ROWS:
            assert time.perf_counter() < until, f"{done} of {ROWS} rows rolled up"
            time.sleep(0.2)
    return time.perf_counter() - started


def _rolled_up(database: psycopg.Connection[Any]) -> int:
    statement = "SELECT coalesce(sum(request_count), 0) FROM usage_rollups WHERE span = 'month' AND tenant_id = 'large'"
    [(rows,)] = database.execute(statement).fetchall()
    return int(rows)


async def _unheard_of(caller: Identity) -> None:
    """Billing knows no keys of these."""


async def _lookup() -> Figure:
    """What every request of the gateway pays to know its caller's policy."""
    table = PolicyTable(_unheard_of, 300, 1)
    tenants = [tenant_pb2.Tenant(id=f"t{number}", policy=tenant_pb2.Policy()) for number in range(1000)]
    table.take(tenant_pb2.WatchPoliciesResponse(tenants=tenants), everything=True)
    callers = [Identity(f"t{number}", "key", frozenset({"developer"}), "r") for number in range(1000)]
    started = time.perf_counter()
    for _ in range(20):
        for caller in callers:
            await table.admit(caller)
    return at_most("policy lookup", (time.perf_counter() - started) / 20_000 * 1e6, "µs", 20, "1,000 tenants")
