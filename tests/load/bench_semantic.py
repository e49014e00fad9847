"""The semantic level of a cache service of its own, over gRPC, with the default embedding model.

The store is filled beside the service with entries of one tenant and one context, the worst case for a lookup.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceStub
from llmmesh.inference.v1 import inference_pb2, inference_pb2_grpc
from meshkit.client import connect
from meshkit.identity import Identity, acting_as
from meshkit.server import Context, Mount, running
from meshkit.settings import ServiceSettings
from services.cache.keys import question_of
from services.cache.vectorstores.edge_shard import shard
from services.cache.vectorstores.payload import ACCURATE, SKETCH, payload_of
from services.cache.vectorstores.port import Dimensions, Entry
from services.inference.catalogue import Catalogue
from services.inference.config import InferenceConfig
from services.inference.embedding import Embedder
from services.inference.servicer import InferenceServicer
from tests.eval.cache.questions import Pair, load
from tests.load.figure import Figure, at_most
from tests.support.cache_calls import SEMANTIC, lookup, prompt, store
from tests.support.fix_redis import RedisProcess
from tests.support.waiting import until
from wordvectors import WordVectors

SIZES = (1_000, 10_000, 100_000)
TENANT = "bench"
LOOKUPS = 200
BATCH = 500
ACCURATE_DIMENSIONS = 384
UNKNOWN_WORDS = [
    *("zebra", "quasar", "harpsichord", "tundra", "monsoon", "cathedral"),
    *("glacier", "origami", "volcano", "tapestry", "lagoon", "meteor"),
]


class Embeddings(InferenceServicer):
    """The real model, served alone; counts what it is asked."""

    def __init__(self) -> None:
        embedder = Embedder(threads=2, max_waiting=64)
        super().__init__(Catalogue({}, embedder), InferenceConfig(models={}))
        self.texts = 0

    async def EmbedText(
        self, request: inference_pb2.EmbedTextRequest, context: Context
    ) -> inference_pb2.EmbedTextResponse:
        """Embed as the inference service does."""
        self.texts += len(request.texts)
        return await super().EmbedText(request, context)


class Service:
    """A cache service as a process of its own, and the process that owns its store."""

    def __init__(self, pid: int, stub: Any, embeddings: Embeddings) -> None:
        self.stub = stub
        self.embeddings = embeddings
        self._process = psutil.Process(pid)

    async def missed(self, text: str) -> None:
        """Look a question up that no entry answers."""
        answered = await self.stub.LookupAnswer(lookup(prompt(text), SEMANTIC))
        assert not answered.HasField("answer")

    def seconds(self) -> float:
        """CPU taken so far by both."""
        each = [process.cpu_times() for process in (self._process, *self._process.children())]
        return sum(times.user + times.system for times in each)

    def megabytes(self) -> list[float]:
        """Resident memory of each."""
        return [process.memory_info().rss / 2**20 for process in (self._process, *self._process.children())]


async def semantic_figures(plot: Path) -> list[Figure]:
    """Misses at every size, hits and memory at the largest; draws how a miss grows."""
    figures: list[Figure] = []
    grown: list[tuple[int, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            path = Path(folder) / str(size)
            await asyncio.to_thread(fill, path / "qdrant", size)
            async with served(path) as service:
                p50, cpu, asked = await misses(service)
                grown.append((size, p50, cpu))
                if size == SIZES[-1]:
                    figures += [
                        at_most(f"semantic miss at {size:,} entries, p50", p50, "ms", 4, asked),
                        at_most(f"semantic miss at {size:,} entries, CPU of service and store", cpu, "ms", 2),
                        await hits(service),
                        *memory(service, size),
                    ]
    draw(grown, plot)
    return figures


def fill(folder: Path, size: int) -> None:
    """Write `size` entries of one tenant and context into a store."""
    table, chance = WordVectors.packaged(), random.Random(size)
    dimensions = Dimensions(accurate=ACCURATE_DIMENSIONS, sketch=table.dimensions)
    question = question_of(prompt("?"), "p1")
    assert question is not None
    words = sorted({word for pair in load("calibration") for word in pair.a.split()} - {*UNKNOWN_WORDS})
    accurate = np.random.default_rng(size).standard_normal((size, ACCURATE_DIMENSIONS), dtype=np.float32)
    with shard(folder / f"multilingual-e5-small-{dimensions.accurate}-{dimensions.sketch}", dimensions) as opened:
        for start in range(0, size, BATCH):
            texts = [" ".join(chance.choices(words, k=8)) for _ in range(start, min(start + BATCH, size))]
            vectors = zip(texts, accurate[start : start + BATCH].tolist(), table.embed_all(texts).tolist(), strict=True)
            opened.put_all([stored(*each, question.context) for each in vectors])


def stored(text: str, vector: list[float], sketch: list[float], context: str) -> tuple[str, Any, Any]:
    """One entry as a shard takes it."""
    entry = Entry(
        str(uuid.uuid4()), vector, sketch, TENANT, "small", context, text, b"x" * 400, expires_at=time.time() + 86_400
    )
    return entry.entry_id, {ACCURATE: vector, SKETCH: sketch}, payload_of(entry)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Service]:
    """A cache service over the filled store, ready to answer."""
    async with AsyncExitStack() as stack:
        redis = RedisProcess(folder)
        redis.start()
        stack.callback(redis.kill)
        embeddings = Embeddings()
        settings = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=0)
        mount = Mount(inference_pb2_grpc.add_InferenceServiceServicer_to_server, embeddings)
        inference = await stack.enter_async_context(running([mount], settings, room="inference"))
        listen = f"unix:{folder}/cache.sock"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cache"),
            env={
                **os.environ,
                "LLMMESH_CACHE_LISTEN": listen,
                "LLMMESH_CACHE_METRICS_LISTEN": "",
                "LLMMESH_CACHE_MESH_TARGET": f"127.0.0.1:{inference}",
                "LLMMESH_CACHE_REDIS_URL": redis.url,
                "LLMMESH_CACHE_QDRANT_PATH": str(folder / "qdrant"),
                "LLMMESH_CACHE_DRAIN_SECONDS": "0",
                "LLMMESH_CACHE_LOG_LEVEL": "error",
            },
        )
        stack.push_async_callback(process.wait)
        stack.callback(process.terminate)
        stub = await stack.enter_async_context(connect(listen, CacheServiceStub, wait_seconds=60))
        service = Service(process.pid, stub, embeddings)
        with acting_as(Identity(tenant_id=TENANT)):
            await until(lambda: _stores(stub), timeout_seconds=120)
            yield service


async def _stores(stub: Any) -> bool:
    return SEMANTIC in (await stub.StoreAnswer(store(prompt()))).levels


async def misses(service: Service) -> tuple[float, float, str]:
    """Median and CPU in milliseconds of a miss without a plausible candidate, and how many questions were such."""
    asked = [" ".join(random.Random(number).sample(UNKNOWN_WORDS, 6)) for number in range(LOOKUPS)]
    without = [text for text in asked if not await _embeds(service, text)]
    before, embedded = service.seconds(), service.embeddings.texts
    times = await timed(without, service.missed)
    cpu = (service.seconds() - before) / len(without) * 1000
    assert service.embeddings.texts == embedded
    return statistics.median(times), cpu, f"{len(without)} of {LOOKUPS} questions were without"


async def _embeds(service: Service, text: str) -> bool:
    """Whether a random entry is plausible, so that the accurate model is asked."""
    embedded = service.embeddings.texts
    await service.missed(text)
    return service.embeddings.texts > embedded


async def hits(service: Service) -> Figure:
    """Median of lookups that were answered: first wordings are stored, second ones asked."""
    pairs = _one_a_cluster(load("heldout"))
    for pair in pairs:
        await service.stub.StoreAnswer(store(prompt(pair.a)))
    times, cpu, model_cpu = [], service.seconds(), time.process_time()
    for pair in pairs:
        started = time.perf_counter()
        answered = await service.stub.LookupAnswer(lookup(prompt(pair.b), SEMANTIC))
        if answered.HasField("answer"):
            times.append((time.perf_counter() - started) * 1000)
    each = [
        (now - then) / len(pairs) * 1000 for now, then in ((service.seconds(), cpu), (time.process_time(), model_cpu))
    ]
    detail = "{} of {} rewordings answered; CPU of each: {:.0f} ms service and store, {:.0f} ms the vector and the call"
    wait = statistics.median(times or [math.inf])
    return at_most("verified semantic hit, p50", wait, "ms", 45, detail.format(len(times), len(pairs), *each))


def _one_a_cluster(pairs: list[Pair]) -> list[Pair]:
    first: dict[tuple[str, int], Pair] = {}
    for pair in pairs:
        if pair.same:
            first.setdefault((pair.lang, pair.cluster), pair)
    return list(first.values())


def memory(service: Service, size: int) -> list[Figure]:
    """What the service takes, and the process that owns the store with so many entries."""
    own, owner = service.megabytes()
    return [
        at_most("memory of the cache service", own, "MB", 150),
        Figure(f"memory of the store's process with {size:,} entries", round(owner), "MB", "", None),
    ]


async def timed(texts: list[str], ask: Callable[[str], Awaitable[None]]) -> list[float]:
    """Milliseconds of each call, one after another."""
    times = []
    for text in texts:
        started = time.perf_counter()
        await ask(text)
        times.append((time.perf_counter() - started) * 1000)
    return times


def draw(grown: list[tuple[int, float, float]], path: Path) -> None:
    """How a miss grows with the entries of its partition."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    sizes, p50, cpu = zip(*grown, strict=True)
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.plot(sizes, p50, "o-", label="p50")
    axes.plot(sizes, cpu, "s--", label="CPU, service and store")
    axes.set(xscale="log", xlabel="entries of one tenant and context", ylabel="ms", ylim=(0, None))
    axes.set_title("A semantic miss without a plausible candidate")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
