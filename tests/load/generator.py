"""Load from h2load (Debian's nghttp2-client), with percentiles from its log of every request."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Load:
    """What one run saw; every request was answered with 200."""

    requests: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


async def h2load(url: str, headers: Mapping[str, str], body: bytes, *, clients: int, seconds: int) -> Load:
    """POST `body` over HTTP/1.1 from `clients` connections for `seconds`.

    Raises:
        RuntimeError: If any answer was not 200.
    """
    with tempfile.TemporaryDirectory() as folder:
        payload, log = Path(folder) / "body", Path(folder) / "log"
        payload.write_bytes(body)
        arguments = [f"--header={name}: {value}" for name, value in headers.items()]
        process = await asyncio.create_subprocess_exec(
            "h2load", "--h1", "-t1", f"-c{clients}", f"-D{seconds}", f"-d{payload}", f"--log-file={log}",
            "--header=content-type: application/json", *arguments, url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        rows = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
    if not rows or any(row[1] != "200" for row in rows):
        raise RuntimeError(f"h2load saw other answers than 200:\n{output.decode()}")
    return _summary(rows, seconds)


def _summary(rows: list[list[str]], seconds: int) -> Load:
    """Rows are start (µs), status, duration (µs)."""
    times = sorted(int(row[2]) / 1000 for row in rows)

    def percentile(share: float) -> float:
        return times[min(len(times) - 1, int(len(times) * share))]

    return Load(len(times), len(times) / seconds, percentile(0.5), percentile(0.95), percentile(0.99))
