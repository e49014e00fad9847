"""An inference room that says what a test tells it to, over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from llmmesh.inference.v1 import inference_pb2
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceServicer, add_InferenceServiceServicer_to_server
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings

SAFE = {"safe": 0.97, "unsafe": 0.03}


@dataclass
class ScriptedInference(InferenceServiceServicer):
    """What it says, and what it was asked."""

    port: int = 0
    text: str = "safe"
    first_tokens: Mapping[str, float] = field(default_factory=lambda: dict(SAFE))
    code: grpc.StatusCode | None = None
    silent: bool = False
    unsafe_word: str = ""
    """Where it stands in the last message, that is unsafe."""
    gate: asyncio.Event | None = None
    """Nothing is answered before it is set."""
    asked: list[Any] = field(default_factory=list)
    vector: Sequence[float] = (0.0,) * 384
    without_adapters: bool = False
    """Like a service that knows of none."""
    embedded: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """All knobs and counters as new."""
        self.__init__(self.port)  # type: ignore[misc]

    async def ListModels(self, request: Any, context: Any) -> Any:
        """One model."""
        model = inference_pb2.Model(name="llama-guard-3", state=inference_pb2.MODEL_STATE_READY)
        return inference_pb2.ListModelsResponse(models=[model])

    async def CompleteText(self, request: Any, context: Any) -> Any:
        """The verdict, or a fault."""
        self.asked.append(request)
        if self.silent:
            await asyncio.Event().wait()
        if self.gate is not None:
            await self.gate.wait()
        if self.unsafe_word and self.unsafe_word in judged_text(request.text):
            return _verdict("unsafe\nS1", {"unsafe": 0.9, "safe": 0.1})
        if self.code is not None:
            await context.abort(self.code, "as told")
        return _verdict(self.text, self.first_tokens)

    async def EmbedText(self, request: Any, context: Any) -> Any:
        """The vector for every text, or a fault."""
        self.embedded += request.texts
        if self.silent:
            await asyncio.Event().wait()
        if self.code is not None:
            await context.abort(self.code, "as told")
        vectors = [inference_pb2.Embedding(values=self.vector) for _ in request.texts]
        adapter = "" if self.without_adapters else request.adapter
        return inference_pb2.EmbedTextResponse(embeddings=vectors, adapter=adapter)


def judged_text(prompt: str) -> str:
    """The last message of a guard model's prompt."""
    conversation = prompt.rpartition("<BEGIN CONVERSATION>")[2].partition("<END CONVERSATION>")[0]
    return conversation.strip().rpartition("\n\nAgent: ")[2].removeprefix("Agent: ")


def _verdict(text: str, first_tokens: Mapping[str, float]) -> Any:
    first = [inference_pb2.TokenProbability(token=token, probability=p) for token, p in first_tokens.items()]
    return inference_pb2.CompleteTextResponse(text=text, first_tokens=first)


@asynccontextmanager
async def scripted_inference() -> AsyncIterator[ScriptedInference]:
    """A running one."""
    scripted = ScriptedInference()
    config = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=0)
    mount = Mount(add_InferenceServiceServicer_to_server, scripted)
    async with running([mount], config, room="inference") as scripted.port:
        yield scripted
