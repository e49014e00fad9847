"""What the machine itself takes, so that figures of different machines and days can be compared."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from tests.load.figure import Figure


async def machine() -> Figure:
    """One round trip between two processes: what any hop costs at the least, here and now."""
    echo = "import sys\nwhile line := sys.stdin.buffer.readline(): sys.stdout.buffer.write(line); sys.stdout.flush()"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-IS", "-c", echo, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    times = []
    for _ in range(2000):
        started = time.perf_counter()
        process.stdin.write(b"x\n")
        await process.stdout.readline()
        times.append((time.perf_counter() - started) * 1000)
    process.stdin.close()
    await process.wait()
    return Figure(
        "the machine: a round trip between two processes, p50", round(statistics.median(times), 3), "ms", "", None
    )
