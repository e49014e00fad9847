"""Load on one RPC: ghz where it is installed, h2load for constant requests, our own client for the rest."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path

import grpc

from tests.load.frame import framed
from tests.load.generator import Load
from tests.load.rpcs import Rpc


class LoadFailed(Exception):
    """The generator ended with an error; the message is what it said."""


async def ghz(rpc: Rpc, *, clients: int, seconds: int) -> Load:
    """Call for `seconds` from `clients` connections with ghz.

    Raises:
        LoadFailed: If ghz or any call failed.
    """
    asked = {"concurrency": clients, "connections": clients, "duration": f"{seconds}s", "duration-stop": "wait"}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps({**rpc.config, **asked}))
        report = json.loads(await _output("ghz", f"--config={config}", "--format=json"))
    if set(report["statusCodeDistribution"]) != {"OK"}:
        raise LoadFailed(f"ghz saw {report['statusCodeDistribution']}: {report['errorDistribution']}")
    times = {row["percentage"]: row["latency"] / 1e6 for row in report["latencyDistribution"]}
    return Load(report["count"], report["rps"], times[50], times[95], times[99])


async def h2load(rpc: Rpc, *, clients: int, seconds: int, per_client_per_second: int | None = None) -> Load:
    """Send one constant request for `seconds` from `clients` HTTP/2 connections, as fast as they can or at a rate.

    It does not see gRPC statuses.

    Raises:
        LoadFailed: If any reply was not HTTP 200.
    """
    with tempfile.TemporaryDirectory() as folder:
        frame, log = Path(folder) / "frame", Path(folder) / "log"
        frame.write_bytes(framed(rpc.request()))
        rate = [] if per_client_per_second is None else [f"--rps={per_client_per_second}"]
        headers = [("content-type", "application/grpc"), ("te", "trailers"), *rpc.metadata()]
        output = await _output(
            "h2load", "-t1", f"-c{clients}", "-m1", f"-D{seconds}", *rate, f"--data={frame}", f"--log-file={log}",
            *(f"--header={name}: {value}" for name, value in headers), f"http://{rpc.host}{rpc.path}",
        )  # fmt: skip
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    if not rows or any(status != "200" for _, status, _ in rows):
        raise LoadFailed(output)
    return summary([int(microseconds) / 1000 for _, _, microseconds in rows], seconds)


async def grpc_aio(rpc: Rpc, *, clients: int, seconds: int) -> Load:
    """Call for `seconds` from `clients` channels, every request with a number of its own.

    Raises:
        grpc.aio.AioRpcError: If any call fails.
    """
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def client(first: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(rpc.host, options=options) as channel:
            number = first
            while (started := time.perf_counter()) < end:
                await rpc.call(channel, number)
                times.append((time.perf_counter() - started) * 1000)
                number += clients

    async with asyncio.TaskGroup() as group:
        for first in range(clients):
            group.create_task(client(first + 1))
    return summary(times, seconds)


def summary(times_ms: list[float], seconds: float) -> Load:
    """Rate and percentiles of calls that took `times_ms`."""
    ranked = sorted(times_ms)
    p50, p95, p99 = (ranked[min(len(ranked) - 1, int(len(ranked) * share))] for share in (0.5, 0.95, 0.99))
    return Load(len(ranked), len(ranked) / seconds, p50, p95, p99)


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise LoadFailed(f"{command[0]}: {errors.decode() or output.decode()}")
    return output.decode()
