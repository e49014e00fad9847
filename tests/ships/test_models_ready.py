"""The start-up probe of an inference pod, run as the kubelet runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llmmesh.inference.v1 import inference_pb2
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceServicer, add_InferenceServiceServicer_to_server
from meshkit.server import Context, Mount, running
from meshkit.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
PROBE = ROOT / "deploy" / "k8s" / "llmmesh" / "files" / "inference" / "models_ready.py"
ALONE = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=0)


class Models(InferenceServiceServicer):
    """Models in the states a test gives them."""

    def __init__(self, *states: inference_pb2.ModelState.ValueType) -> None:
        self._states = states

    async def ListModels(self, request: Any, context: Context) -> inference_pb2.ListModelsResponse:
        models = [inference_pb2.Model(name=f"m{place}", state=state) for place, state in enumerate(self._states)]
        return inference_pb2.ListModelsResponse(models=models)


@asynccontextmanager
async def serving(*states: inference_pb2.ModelState.ValueType) -> AsyncIterator[int]:
    """An inference room of which only the list of models matters."""
    mounts = [Mount(add_InferenceServiceServicer_to_server, Models(*states))]  # type: ignore[abstract]
    async with running(mounts, ALONE, room="inference") as port:
        yield port


async def probe(port: int) -> tuple[int | None, str]:
    """Exit status of the probe, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROBE), f"127.0.0.1:{port}"),
        env={**os.environ, "PYTHONPATH": str(ROOT / "libs")},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, errors.decode()


async def test_a_pod_takes_part_once_every_model_answers() -> None:
    async with serving(inference_pb2.MODEL_STATE_READY, inference_pb2.MODEL_STATE_READY) as port:
        assert await probe(port) == (0, "")


async def test_a_pod_waits_for_a_model_that_loads() -> None:
    async with serving(inference_pb2.MODEL_STATE_READY, inference_pb2.MODEL_STATE_WARMING) as port:
        status, said = await probe(port)
    assert (status, said.strip()) == (1, "not ready: m1")


async def test_a_pod_that_does_not_listen_yet_is_not_ready(free_port: int) -> None:
    status, said = await probe(free_port)
    assert status == 1
    assert said.startswith("no answer yet")
