"""The guard as a process of its own: what a second start costs, and what it holds in memory."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psutil

from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceStub
from meshkit.client import connect

MOST_RESIDENT_MB = 130
"""About 110 on the machines where it was measured."""


async def _started_once(target: str, cache: Path) -> tuple[float, int]:
    """Processor seconds until it can be reached, and the megabytes that it holds then."""
    settings = {"LISTEN": target, "METRICS_LISTEN": "", "CACHE": str(cache)}
    environment = {**os.environ, **{f"LLMMESH_GUARD_{name}": value for name, value in settings.items()}}
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.guard", env=environment)
    try:
        async with connect(target, GuardServiceStub, wait_seconds=60):
            process = psutil.Process(child.pid)
            spent = process.cpu_times()
            return spent.user + spent.system, process.memory_info().rss >> 20
    finally:
        child.terminate()
        await child.wait()


async def test_a_second_start_costs_less_and_the_process_stays_small(tmp_path: Path, free_port: int) -> None:
    target = f"127.0.0.1:{free_port}"
    first, _ = await _started_once(target, tmp_path)
    second, resident_mb = await _started_once(target, tmp_path)
    print(f"processor seconds until ready: {first:.2f}, then {second:.2f}; resident {resident_mb} MB")
    assert second < first
    assert resident_mb <= MOST_RESIDENT_MB
