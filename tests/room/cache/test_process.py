"""The cache as a process of its own: killed, stopped, started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceStub
from meshkit.client import connect
from meshkit.identity import Identity, acting_as
from services.cache.vectorstores.edge_shard import shard
from services.cache.vectorstores.port import Dimensions
from tests.support.cache_calls import SEMANTIC, answer, both_levels, lookup, prompt, store
from tests.support.scripted_embeddings import DIMENSIONS, ScriptedEmbeddings

ACME = Identity(tenant_id="acme")
Start = Callable[[], AbstractAsyncContextManager[Any]]


@pytest.fixture
def start(redis_url: str, inference_target: str, tmp_path: Path, free_port: int) -> Start:
    """Starts the service as a process, on the same folder and port each time."""
    target = f"127.0.0.1:{free_port}"
    settings = {
        "LISTEN": target,
        "METRICS_LISTEN": "",
        "MESH_TARGET": inference_target,
        "REDIS_URL": redis_url,
        "REDIS_TIMEOUT_SECONDS": "2",
        "QDRANT_PATH": str(tmp_path),
        "VECTOR_STORE_TIMEOUT_SECONDS": "5",
        "EMBEDDING_TIMEOUT_SECONDS": "5",
        "EMBEDDING_DIMENSIONS": str(DIMENSIONS),
    }
    environment = {**os.environ, **{f"LLMMESH_CACHE_{name}": value for name, value in settings.items()}}

    @asynccontextmanager
    async def started() -> AsyncIterator[Any]:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.cache", env=environment)
        try:
            async with connect(target, CacheServiceStub, wait_seconds=30) as stub:
                await both_levels(stub)
                yield process, stub
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return started


async def test_a_killed_service_has_lost_no_acknowledged_answer(start: Start, embeddings: ScriptedEmbeddings) -> None:
    async with start() as (process, stub):
        stored = await _store(stub, embeddings, 40)
        process.kill()
        await process.wait()
    async with start() as (process, stub):
        found = [await _find(stub, number) for number in range(40)]
    assert stored == 40
    assert found == [f"answer {number}" for number in range(40)]


async def test_a_stopped_service_leaves_no_process_behind(start: Start) -> None:
    async with start() as (process, _):
        children = _children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert children
    assert not set(children) & _alive()


async def test_a_store_of_another_model_is_removed_unless_somebody_owns_it(start: Start, tmp_path: Path) -> None:
    left, in_use = tmp_path / "another-model-384-64", tmp_path / "third-model-384-64"
    with shard(left, Dimensions(384, 64)):
        pass
    with shard(in_use, Dimensions(384, 64)):
        async with start():
            assert not left.exists()
            assert in_use.exists()


async def _store(stub: Any, embeddings: ScriptedEmbeddings, count: int) -> int:
    stored = 0
    with acting_as(ACME):
        for number in range(count):
            embeddings.alike(f"How is topic {number}?", f"How is topic {number}, please?")
            request = store(prompt(f"How is topic {number}?"), answer(f"answer {number}"))
            stored += SEMANTIC in (await stub.StoreAnswer(request)).levels
    return stored


async def _find(stub: Any, number: int) -> str:
    with acting_as(ACME):
        found = await stub.LookupAnswer(lookup(prompt(f"How is topic {number}, please?"), SEMANTIC))
    return str(found.answer.answer.text)


def _alive() -> set[int]:
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
