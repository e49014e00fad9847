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
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.billing.v1 import billing_pb2, reports_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from services.billing.config import BillingConfig
from services.gateway.policies import PolicyTable
from tests.load.figure import Figure, at_least, at_most
from tests.support.billing_room import ADMIN, PRICES, Room, billing_stubs
from tests.support.fix_postgres import Postgres, free_port, postgres_servers

CALLERS = 64
SECONDS = 6.0
BATCH = 1000
ROWS = 5_000_000
TENANTS = 20
REPORTS = 60
START_SECONDS = 60
ROLLUP_SECONDS = 600

GENERATE = """
INSERT INTO ledger (tenant_id, request_id, key_id, team_id, tags, model, deployment, provider, cache_status,
    input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_micros,
    saved_micros, currency_code, finish_reason, create_time)
SELECT 'tenant-' || n %% {tenants}, 'generated-' || n, 'key-' || n / {tenants} %% 20, 'team-' || n / {tenants} %% 5,
    ARRAY['tag-' || n / {tenants} %% 3], 'model-' || n %% 4, 'deployment-' || n %% 4, 'provider-' || n %% 3,
    CASE WHEN n %% 5 < 2 THEN 'exact' ELSE 'miss' END, 500, 0, 0, 200, 0, false,
    CASE WHEN n %% 5 < 2 THEN 0 ELSE 1000 END, CASE WHEN n %% 5 < 2 THEN 1000 ELSE 0 END, 'RUB', 'stop',
    date_trunc('month', now(), 'UTC') - interval '60 days' + random() * interval '90 days'
FROM generate_series(%(first)s, %(last)s) AS n
"""


async def billing_figures(rows: int = ROWS) -> list[Figure]:
    """Reservations, ingestion, reports over many rows, and the policy lookup of the gateway."""
    with postgres_servers() as make:
        async with _billing(make()) as room:
            figures = [await _pairs(room), await _ingestion(room), await _reports(room, rows)]
    return [*figures, await _lookup()]


@asynccontextmanager
async def _billing(server: Postgres) -> AsyncIterator[Room]:
    with tempfile.TemporaryDirectory() as folder:
        prices = Path(folder) / "prices.yaml"
        prices.write_text(PRICES)
        config = BillingConfig(
            database_url=server.url(server.create_database()),
            signing_key_file=Path(folder) / "key.json",
            prices=prices,
            listen=f"127.0.0.1:{free_port()}",
            metrics_listen="",
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.billing", env=_environment(config), stdout=-3, stderr=-3
        )
        try:
            async with billing_stubs(int(config.listen.rpartition(":")[2]), config, wait_seconds=START_SECONDS) as room:
                await room.becomes(serving=True)
                yield room
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


async def _pairs(room: Room) -> Figure:
    """Callers of one tenant, as fast as they can; then a budget that is not enough for all."""
    caller = await room.tenant("hot", rubles=10**6)
    done = 0
    until = time.perf_counter() + SECONDS

    async def spend(number: int) -> None:
        nonlocal done
        turn = 0
        while time.perf_counter() < until:
            reservation = await room.reserve(caller, f"{number}-{turn}", input_tokens=100)
            await room.commit(caller, reservation, input_tokens=50)
            done, turn = done + 1, turn + 1

    await asyncio.gather(*(spend(number) for number in range(CALLERS)))
    over = await _overspent(room)
    detail = f"{CALLERS} callers, one tenant; of 1,000 at once against a budget for 100, {100 + over} passed"
    return at_least("reserve and settle, pairs", done / SECONDS, "pairs/s", 500, detail)


async def _overspent(room: Room) -> int:
    caller = await room.tenant("limited", rubles=100)
    asked = [room.reserve(caller, f"r{number}") for number in range(1000)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert {error_reason(error) for error in refused} == {"BUDGET_EXCEEDED"}
    return 1000 - len(refused) - 100


async def _ingestion(room: Room) -> Figure:
    """Cache hits in the batches that gateways send."""
    await room.tenant("cached")
    written = 0
    until = time.perf_counter() + SECONDS
    now = Timestamp()
    now.GetCurrentTime()

    def batch(name: str) -> billing_pb2.RecordUsageRequest:
        usage = chat_pb2.TokenUsage(input_tokens=500, output_tokens=200)
        records = [
            billing_pb2.UsageRecord(
                request_id=f"{name}-{number}", tenant_id="cached", key_id="k", model="small", provider="local",
                deployment="local/small", cache_status="exact", usage=usage, create_time=now,
            )
            for number in range(BATCH)
        ]  # fmt: skip
        return billing_pb2.RecordUsageRequest(records=records)

    async def write(worker: int) -> None:
        nonlocal written
        turn = 0
        while time.perf_counter() < until:
            with acting_as(ADMIN):
                await room.billing.RecordUsage(batch(f"{worker}-{turn}"))
            written, turn = written + BATCH, turn + 1

    await asyncio.gather(*(write(worker) for worker in range(4)))
    return at_least("ledger rows of cached answers", written / SECONDS, "rows/s", 10_000, "generator included")


async def _reports(room: Room, rows: int) -> Figure:
    for number in range(TENANTS):
        await room.tenant(f"tenant-{number}")
    seconds = await asyncio.to_thread(_generate, room, rows)
    times = []
    for number in range(REPORTS):
        request = reports_pb2.GetReportRequest(tenant_id=f"tenant-{number % TENANTS}")
        started = time.perf_counter()
        with acting_as(ADMIN):
            await room.reports.GetReport(request)
        times.append((time.perf_counter() - started) * 1000)
    p95 = statistics.quantiles(times, n=20)[-1]
    detail = f"{rows:,} rows, p50 {statistics.median(times):.0f} ms; rolled up in {seconds:.0f} s"
    return at_most("report of a month, p95", p95, "ms", 300, detail)


def _generate(room: Room, rows: int) -> float:
    """Fill the ledger; returns how long the roll-ups took after that."""
    statement = GENERATE.format(tenants=TENANTS).encode()
    chunk = min(rows, 500_000)
    with room.database() as database:
        for first in range(0, rows, chunk):
            database.execute(statement, {"first": first, "last": min(first + chunk, rows) - 1})
        database.execute("ANALYZE")
        started = time.perf_counter()
        while True:
            [row] = database.execute(
                "SELECT coalesce(sum(request_count), 0) FROM usage_rollups "
                "WHERE span = 'month' AND tenant_id LIKE 'tenant-%'"
            ).fetchall()
            if row[0] == rows:
                return time.perf_counter() - started
            assert time.perf_counter() < started + ROLLUP_SECONDS, f"{row[0]} of {rows} rows rolled up"
            time.sleep(0.2)


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
