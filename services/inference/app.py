"""Puts the inference room together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from llmmesh.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from meshkit.background import in_background
from meshkit.server import Mount, running
from services.inference.catalogue import Catalogue
from services.inference.chat import ChatModel
from services.inference.config import InferenceConfig
from services.inference.embedding import Embedder
from services.inference.keeper import EngineKeeper
from services.inference.runtime import prepare_environment
from services.inference.servicer import InferenceServicer


@asynccontextmanager
async def inference(config: InferenceConfig) -> AsyncIterator[int]:
    """Run the inference room; yields the port it listens on.

    It answers as soon as the embedding model is there, within a few seconds. Chat models load meanwhile, one after
    another; ListModels says how far they are.
    """
    prepare_environment(config.models.values(), os.environ)
    turn = asyncio.Lock()
    keepers = [EngineKeeper(name, source, config, turn) for name, source in config.models.items()]
    with closing(Embedder(threads=config.embedding_threads, max_waiting=config.embedding_max_waiting)) as embedder:
        catalogue = Catalogue({keeper.name: ChatModel(keeper, config) for keeper in keepers}, embedder)
        mount = Mount(add_InferenceServiceServicer_to_server, InferenceServicer(catalogue, config))
        # The engines outlive the server, so that answers under way can be drained.
        loading = in_background(*(keeper.keep() for keeper in keepers))
        async with loading, running([mount], config, room="inference") as port:
            yield port
