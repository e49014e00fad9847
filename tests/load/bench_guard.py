"""The guard alone, as a process of its own on one core; the generator keeps to another."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import grpc
import psutil

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceStub
from meshkit.client import connect
from meshkit.identity import Identity, acting_as
from services.guard.layers import PACKS
from services.guard.patterns import LAYER as PATTERNS
from services.guard.policy import load_policy
from services.guard.verdict import Direction
from tests.load.figure import Figure, at_most
from tests.support.ports import free_port

if TYPE_CHECKING:
    from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceAsyncStub

CALLER = Identity("acme", "key-1", frozenset({"developer"}), "req-1")
PROSE = (
    "Завтра в десять утра мы обсудим новый договор с поставщиком и сроки доставки. The meeting starts at ten and the "
    "agenda has four items: prices, delivery, quality and the plan for spring. После обеда покажем склад гостям. "
)
PROMPT_BYTES = 2048
ROUNDS = 200
CHUNK_CHARACTERS = 120
"""What a gateway sends at once while the guard has the chunk before."""
STREAMS, TOKENS_PER_SECOND, SECONDS = 100, 50, 10
MOST_LATE_MILLISECONDS = 100
"""Five tokens: a stream that is later than that at its end is falling behind."""
TOKEN = "слово "
START_SECONDS = 60


async def guard_figures() -> list[Figure]:
    """Prompts and answers through the guard, one at a time and a hundred at once."""
    with acting_as(CALLER):
        async with _guard() as stub:
            return [_patterns(), *await _prompts(stub), *await _chunks(stub), *await _streams(stub)]


@asynccontextmanager
async def _guard() -> AsyncIterator[GuardServiceAsyncStub]:
    """A guard that has one core to itself, as far as the machine has two."""
    target, cores = f"127.0.0.1:{free_port()}", sorted(os.sched_getaffinity(0))
    environment = {**os.environ, "LLMMESH_GUARD_LISTEN": target, "LLMMESH_GUARD_METRICS_LISTEN": ""}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.guard", env=environment, stdout=-3, stderr=-3
    )
    try:
        psutil.Process(process.pid).cpu_affinity(cores[-1:])
        async with connect(target, GuardServiceStub, wait_seconds=START_SECONDS) as stub:
            yield cast("GuardServiceAsyncStub", stub)
    finally:
        process.terminate()
        await process.wait()


def prompt_text() -> str:
    """Mixed Russian and English prose of 2 KB."""
    text = PROSE * (PROMPT_BYTES // len(PROSE.encode()) + 1)
    return text.encode()[:PROMPT_BYTES].decode(errors="ignore")


def _patterns() -> Figure:
    scanner, text = load_policy(PACKS).scanners[Direction.INPUT], prompt_text()
    took = [_milliseconds(lambda: list(scanner.scan(text))) for _ in range(ROUNDS)]
    return at_most("guard: patterns on 2 KB, in the service, p50", statistics.median(took), "ms", 0.3)


async def _prompts(stub: GuardServiceAsyncStub) -> list[Figure]:
    """Prompts through gRPC, and what is left of each without the time that names and classifier took."""
    part = chat_pb2.ContentPart(text=prompt_text())
    request = guard_pb2.CheckPromptRequest(messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[part])])
    layers: list[dict[str, float]] = []

    async def ask() -> None:
        verdict = (await stub.CheckPrompt(request)).verdict
        layers.append({each.layer: each.duration.ToNanoseconds() / 1e6 for each in verdict.layer_times})

    took = await _timed(ask)
    alone = [each - sum(times.values()) + times[PATTERNS] for each, times in zip(took, layers, strict=True)]
    parts = ", ".join(f"{layer} {statistics.median(each[layer] for each in layers):.2f}" for layer in layers[0])
    told = "the same calls, less the time of names and classifier"
    return [
        at_most("guard: patterns on 2 KB, through gRPC, p50", statistics.median(alone), "ms", 1.5, told),
        Figure(
            "guard: all quick layers on 2 KB, through gRPC, p50",
            round(statistics.median(took), 2),
            "ms",
            "",
            None,
            parts,
        ),
    ]


async def _timed(ask: Callable[[], Awaitable[None]]) -> list[float]:
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await ask()
        took.append((time.perf_counter() - started) * 1000)
    return took


def _milliseconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return (time.perf_counter() - started) * 1000


async def _chunks(stub: GuardServiceAsyncStub) -> list[Figure]:
    """What the check adds to the first chunk of an answer, its stream opened meanwhile, and to each further one."""
    firsts, others = [], []
    for _ in range(ROUNDS // 10):
        call = stub.WatchAnswer()
        for number in range(10):
            started = time.perf_counter()
            await call.write(guard_pb2.WatchAnswerRequest(text=(PROSE * 2)[number : number + CHUNK_CHARACTERS]))
            await call.read()
            (others if number else firsts).append((time.perf_counter() - started) * 1000)
        await _ended(call)
    p95 = sorted(others)[int(len(others) * 0.95)]
    return [
        at_most("guard: stream check, first chunk, p50", statistics.median(firsts), "ms", 20),
        at_most(
            "guard: stream check, each further chunk, p50", statistics.median(others), "ms", 1, f"p95 {p95:.2f} ms"
        ),
    ]


async def _ended(call: grpc.aio.StreamStreamCall) -> None:
    await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass


@dataclass(slots=True)
class Stream:
    """One answer of steady speed; what comes due while the guard has a chunk goes with the next.

    It offers its speed and never more, so that what is released in a given time can only be less: whether it falls
    behind is told by how late its chunks are, and whether they become later.
    """

    started: float = field(default_factory=time.perf_counter)
    late: list[tuple[float, float]] = field(default_factory=list)
    """For each chunk, when it was released, in seconds, and how long its first token had been due, in milliseconds."""

    async def run(self, stub: GuardServiceAsyncStub) -> None:
        """Speak for the time, then end."""
        call, sent = stub.WatchAnswer(), 0
        while (elapsed := time.perf_counter() - self.started) < SECONDS:
            due = int(elapsed * TOKENS_PER_SECOND)
            if due == sent:
                await asyncio.sleep((sent + 1) / TOKENS_PER_SECOND - elapsed)
                continue
            first_due = (sent + 1) / TOKENS_PER_SECOND
            await call.write(guard_pb2.WatchAnswerRequest(text=TOKEN * (due - sent)))
            await call.read()
            sent, released = due, time.perf_counter() - self.started
            self.late.append((released, (released - first_due) * 1000))
        await _ended(call)

    def lateness(self, start: float, end: float) -> float:
        """The median of its chunks that were released in that time, in milliseconds."""
        return statistics.median(late for released, late in self.late if start <= released < end)


async def _streams(stub: GuardServiceAsyncStub) -> list[Figure]:
    streams = [Stream() for _ in range(STREAMS)]
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(stream.run(stub))
    third = SECONDS / 3
    early = max(stream.lateness(third, 2 * third) for stream in streams)
    late = max(stream.lateness(2 * third, SECONDS + 60) for stream in streams)
    waits = sorted(late for stream in streams for _, late in stream.late)
    told = f"a chunk waited {statistics.median(waits):.0f} ms at the median, {waits[int(len(waits) * 0.99)]:.0f} at p99"
    name = f"guard: {STREAMS} streams of {TOKENS_PER_SECOND} tokens/s on one core"
    return [
        at_most(f"{name}, how late the latest is in the last third", late, "ms", MOST_LATE_MILLISECONDS, told),
        at_most(f"{name}, how much later than in the second", late - early, "ms", 1000 / TOKENS_PER_SECOND),
    ]
