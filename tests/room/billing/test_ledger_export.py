"""The ledger as files: every row of the period, and nobody else's."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from pyarrow import parquet

from meshkit.identity import Identity
from tests.support.billing_room import RUBLE, Room

PERIOD = ("--start", "2026-01-01", "--end", "2100-01-01")


def asked(room: Room, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command and its environment."""
    environment = {**os.environ, "LLMMESH_BILLING_DATABASE_URL": room.config.database_url.get_secret_value()}
    return [sys.executable, "-m", "services.billing.export", *arguments], environment


def export(room: Room, *arguments: str) -> subprocess.CompletedProcess[str]:
    command, environment = asked(room, *arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def export_to(path: Path, room: Room, *arguments: str) -> None:
    command, environment = asked(room, *arguments)
    with path.open("wb") as file:
        subprocess.run(command, env=environment, stdout=file, check=True, timeout=60)


async def spent(room: Room, name: str) -> Identity:
    caller = await room.tenant(name)
    for number in range(3):
        await room.commit(caller, await room.reserve(caller, f'{name} "{number}", \\'))
    return caller


async def test_the_ledger_is_exported_as_a_table_and_as_json_lines(room: Room) -> None:
    await spent(room, "exported")
    await spent(room, "not-exported")
    table = list(csv.DictReader(io.StringIO(export(room, "--tenant", "exported", *PERIOD).stdout)))
    lines = export(room, "--tenant", "exported", *PERIOD, "--format", "jsonl").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    wanted = [f'exported "{number}", \\' for number in range(3)]
    assert [row["request_id"] for row in table] == [row["request_id"] for row in rows] == wanted
    assert sum(int(row["cost_micros"]) for row in table) == sum(row["cost_micros"] for row in rows) == 3 * RUBLE


async def test_the_ledger_is_exported_as_parquet_with_exact_amounts(room: Room, tmp_path: Path) -> None:
    await spent(room, "columnar")
    path = tmp_path / "ledger.parquet"
    export_to(path, room, "--tenant", "columnar", *PERIOD, "--format", "parquet")
    table = parquet.read_table(path).to_pydict()
    assert table["request_id"] == [f'columnar "{number}", \\' for number in range(3)]
    assert table["cost_micros"] == [RUBLE] * 3
    assert {time.tzinfo for time in table["create_time"]} != {None}


async def test_a_period_without_rows_is_a_table_without_lines(room: Room) -> None:
    await spent(room, "elsewhen")
    done = export(room, "--tenant", "elsewhen", "--start", "2020-01-01", "--end", "2020-02-01")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)


def test_a_tenant_that_can_be_none_is_named() -> None:
    command = [sys.executable, "-m", "services.billing.export", "--database-url", "postgresql+psycopg://x/y"]
    done = subprocess.run([*command, "--tenant", "%", *PERIOD], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "--tenant" in done.stderr
