"""The inference room as a process of its own, seen from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from llmmesh.inference.v1 import inference_pb2
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceStub
from meshkit.client import connect
from tests.support.ports import free_port

REPOSITORY = Path(__file__).parents[2]
LOAD_SECONDS = 300.0
STOP_SECONDS = 30.0


class InferenceProcess:
    """`python -m services.inference` on ports of its own."""

    def __init__(self, process: subprocess.Popen[bytes], metrics_port: int, stub: Any) -> None:
        self.process = process
        self.stub = stub
        self._metrics_port = metrics_port

    async def model(self, name: str) -> inference_pb2.Model:
        """What ListModels says about a model."""
        answer = await self.stub.ListModels(inference_pb2.ListModelsRequest(), timeout=30)
        return next(model for model in answer.models if model.name == name)

    async def ready(self, name: str) -> None:
        """Wait until the model answers."""

        async def loaded() -> bool:
            return (await self.model(name)).state == inference_pb2.MODEL_STATE_READY

        await eventually(loaded, LOAD_SECONDS)

    async def idle(self, model: str) -> None:
        """Wait until no answer of the model is being written."""

        async def nothing_runs() -> bool:
            return await asyncio.to_thread(self.requests, model, "running") == 0

        await eventually(nothing_runs, STOP_SECONDS)

    def requests(self, model: str, state: str) -> float:
        """Questions under way, from the metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        wanted = {"model": model, "state": state}
        return sum(
            each.value for each in samples if each.name == "llmmesh_inference_requests" and each.labels == wanted
        )

    def engine_processes(self) -> list[psutil.Process]:
        """The engine's processes, the engine's core first."""
        return [each for each in psutil.Process(self.process.pid).children(recursive=True) if "VLLM" in each.name()]

    def kill(self) -> None:
        """End it as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()

    async def stop(self) -> int:
        """Ask it to end; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, STOP_SECONDS)


@asynccontextmanager
async def inference_process(log: Path, models: str, **settings: str) -> AsyncIterator[InferenceProcess]:
    """Run the room for the block; it has bound its port when the block begins, its models still load."""
    port, metrics_port = free_port(), free_port()
    environment = {
        "LISTEN": f"127.0.0.1:{port}",
        "METRICS_LISTEN": f"127.0.0.1:{metrics_port}",
        "MODELS": models,
        **settings,
    }
    process = start(log, {f"LLMMESH_INFERENCE_{name}": value for name, value in environment.items()})
    try:
        async with connect(f"127.0.0.1:{port}", InferenceServiceStub, wait_seconds=60) as stub:
            yield InferenceProcess(process, metrics_port, stub)
    finally:
        process.kill()
        process.wait()


def start(log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the room, its output in `log`."""
    command = [sys.executable, "-m", "services.inference"]
    with log.open("wb") as output:
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Wait until the condition holds; what is asked lives in another process and sends no events."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)
