"""Billing as a process: settings, the price file, metrics."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llmmesh.billing.v1 import billing_pb2
from meshkit.identity import acting_as
from services.billing.app import billing
from services.billing.config import BillingConfig
from services.billing.database.prices import PriceConflict
from tests.room.billing.conftest import Configure
from tests.support.billing_room import ADMIN, Room, billing_room


def start(**settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLMMESH_")}
    variables = {f"LLMMESH_BILLING_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "services.billing"]
    return subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, timeout=60)


def test_all_mistakes_in_the_settings_are_listed_at_once(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("prices: [{deployment: a/b, currency: EUR, input: '1', output: '0.0000001'}]")
    done = start(database_url="mysql://x", prices=str(prices), reservation_seconds="0")
    assert done.returncode == 78
    for name in ("DATABASE_URL", "SIGNING_KEY_FILE", "PRICES", "RESERVATION_SECONDS"):
        assert f"LLMMESH_BILLING_{name}: " in done.stderr
    assert "prices.0.output" in done.stderr


def test_the_password_of_the_database_is_not_repeated() -> None:
    assert "hunter2" not in start(database_url="mysql://me:hunter2@x").stderr


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


async def quoted(room: Room) -> dict[str, int]:
    prices = (await room.billing.ListPrices(billing_pb2.ListPricesRequest())).prices
    return {price.deployment: price.input_micros for price in prices}


def price_rows(room: Room) -> int:
    with room.database() as database:
        [row] = database.execute("SELECT count(*) FROM prices").fetchall()
    return int(row[0])


async def test_a_price_file_is_imported_when_it_changes_and_history_stays(
    configure: Configure, fresh_books: str, price_file: Path
) -> None:
    config = configure(fresh_books, prices=price_file)
    async with billing_room(config) as room:
        assert await quoted(room) == {"cloud/large": 10_000_000, "local/small": 100_000_000}
        caller = await room.tenant("acme")
        running = await room.reserve(caller, "r1")
    async with billing_room(config) as room:
        assert price_rows(room) == 2
    rewrite(price_file, '"100", cached_input: "10", output: "200", effective: 2026-01-01', '"150", output: "200"')
    async with billing_room(config) as room:
        assert await quoted(room) == {"cloud/large": 10_000_000, "local/small": 150_000_000}
        assert price_rows(room) == 3
        # What was reserved at the old price is billed at the old price.
        assert (await room.commit(caller, running)).cost_micros == 1_000_000
        assert (await room.reserve(caller, "r2")).amount_micros == 1_500_000


async def serve(config: BillingConfig) -> None:
    async with billing(config):
        await asyncio.Event().wait()


async def test_a_price_file_that_rewrites_history_stops_the_room(
    configure: Configure, fresh_books: str, price_file: Path
) -> None:
    config = configure(fresh_books, prices=price_file)
    async with billing_room(config):
        pass
    rewrite(price_file, 'input: "100"', 'input: "99"')
    with pytest.raises(PriceConflict, match="local/small"):
        await serve(config)


async def test_replicas_learn_of_new_prices_at_once(configure: Configure, fresh_books: str, price_file: Path) -> None:
    config = configure(fresh_books, prices=price_file)
    async with billing_room(config) as old:
        rewrite(price_file, "prices:\n", "prices:\n  - {deployment: cloud/new, currency: RUB, input: 1, output: 1}\n")
        async with billing_room(config):
            while "cloud/new" not in await quoted(old):
                pass


async def test_cost_reservations_and_ledger_rows_are_counted(
    configure: Configure, fresh_books: str, free_port: int
) -> None:
    async with billing_room(configure(fresh_books, metrics_listen=f"127.0.0.1:{free_port}")) as room:
        caller = await room.tenant("counted")
        before = await metrics(free_port)
        reservation = await room.reserve(caller, "r1")
        await room.commit(caller, reservation)
        await room.commit(caller, reservation)
        hit = billing_pb2.UsageRecord(
            request_id="h1", tenant_id="counted", model="small", deployment="local/small", cache_status="exact"
        )
        with acting_as(ADMIN):
            await room.billing.RecordUsage(billing_pb2.RecordUsageRequest(records=[hit]))
        after = await metrics(free_port)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown['llm_cost_total{currency="RUB",model="small",provider="local"}'] == 1
    assert grown['llm_reservations_total{outcome="held"}'] == 1
    assert grown['llm_ledger_rows_total{cache="miss"}'] == 1
    assert grown['llm_ledger_rows_total{cache="exact"}'] == 1


async def metrics(port: int) -> dict[str, float]:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}
