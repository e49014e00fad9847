"""A real cache service against a real Redis, the embedded vector store and scripted embeddings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceStub
from llmmesh.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from meshkit.client import connect
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings
from services.cache.app import cache
from services.cache.config import CacheConfig
from tests.support.cache_calls import both_levels
from tests.support.scripted_embeddings import DIMENSIONS, ScriptedEmbeddings

Configure = Callable[..., CacheConfig]
Serve = Callable[[CacheConfig], AbstractAsyncContextManager[Any]]


@pytest.fixture(scope="session")
def embeddings() -> ScriptedEmbeddings:
    return ScriptedEmbeddings()


@pytest.fixture(scope="session")
async def inference_target(embeddings: ScriptedEmbeddings) -> AsyncIterator[str]:
    settings = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=0)
    mount = Mount(add_InferenceServiceServicer_to_server, embeddings)
    async with running([mount], settings, room="inference") as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def configure(redis_url: str, inference_target: str, tmp_path_factory: pytest.TempPathFactory) -> Configure:
    """Settings of a cache for tests; generous deadlines, so that a busy machine fails no test of something else."""

    def with_changes(**changes: Any) -> CacheConfig:
        settings: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "metrics_listen": "",
            "drain_seconds": 0,
            "redis_url": redis_url,
            "redis_timeout_seconds": 2,
            "mesh_target": inference_target,
            "qdrant_path": tmp_path_factory.mktemp("qdrant"),
            "vector_store_timeout_seconds": 5,
            "embedding_timeout_seconds": 5,
            "embedding_dimensions": DIMENSIONS,
        }
        return CacheConfig(**{**settings, **changes})

    return with_changes


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Runs a cache and yields a stub for it, once both its levels are up."""

    @asynccontextmanager
    async def served(config: CacheConfig) -> AsyncIterator[Any]:
        async with (
            cache(config) as port,
            connect(f"127.0.0.1:{port}", CacheServiceStub, wait_seconds=5) as stub,
        ):
            await both_levels(stub)
            yield stub

    return served


@pytest.fixture(scope="session")
async def stub(configure: Configure, serve: Serve) -> AsyncIterator[Any]:
    async with serve(configure()) as stub:
        yield stub
