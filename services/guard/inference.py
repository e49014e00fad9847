"""The inference room, which runs the guard model and the model that embeds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from llmmesh.inference.v1 import inference_pb2
from meshkit.deadline import time_left
from meshkit.dependency import Dependency, Unavailable, Unusable
from meshkit.log import get_logger
from services.guard.escalation import JudgeFailed
from services.guard.llama_guard import CANDIDATES, LAYER, LONGEST_VERDICT, VERDICT, Continuation
from services.guard.meaning import DIMENSIONS, MODEL

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub

LIST_SECONDS = 5.0
CALL_SECONDS = 30.0

log = get_logger()


class GuardModel:
    """The chat model that judges."""

    def __init__(self, inference: InferenceServiceAsyncStub, name: str) -> None:
        self._inference = inference
        self._name = name

    async def continued(self, prompt: str) -> Continuation:
        """Its verdict on a prompt. Raises JudgeFailed."""
        request = inference_pb2.CompleteTextRequest(
            model=self._name,
            text=prompt,
            max_output_tokens=LONGEST_VERDICT,
            regex=VERDICT,
            first_tokens=CANDIDATES,
        )
        try:
            response = await self._inference.CompleteText(request, timeout=time_left(CALL_SECONDS))
        except grpc.aio.AioRpcError as error:
            raise JudgeFailed(error.code().name) from error
        return Continuation(response.text, {each.token: each.probability for each in response.first_tokens})

    async def announce(self) -> None:
        """Say in the log whether the model is there; nothing depends on it, for it may come later."""
        try:
            listed = await self._inference.ListModels(inference_pb2.ListModelsRequest(), timeout=LIST_SECONDS)
        except grpc.aio.AioRpcError as error:
            log.warning("layer_away", layer=LAYER, model=self._name, code=error.code().name)
            return
        states = {each.name: inference_pb2.ModelState.Name(each.state) for each in listed.models if not each.embeds}
        if self._name in states:
            log.info("layer_present", layer=LAYER, model=self._name, state=states[self._name])
        else:
            told = "inference serves no such model: whoever is to be judged by it gets an error"
            log.error("layer_away", layer=LAYER, model=self._name, told=told)


class Embeddings:
    """The model that embeds. While it is away nobody waits for it."""

    def __init__(self, inference: InferenceServiceAsyncStub, adapter: str, usual_seconds: float) -> None:
        """`adapter` is what the vectors are made with; after `usual_seconds` without them the model counts as away."""
        self._inference = inference
        self._adapter = adapter
        self._usual_seconds = usual_seconds
        self._dependency = Dependency("embeddings", faults=(grpc.aio.AioRpcError,))

    async def of(self, texts: Sequence[str], seconds: float) -> list[Sequence[float]]:
        """The vectors of texts within so many seconds. Raises Unavailable."""
        seconds = time_left(seconds)
        if seconds >= self._usual_seconds:
            return await self._asked(texts, seconds)
        try:
            # What one caller does not wait for tells nothing of the model: the others go on asking it.
            async with asyncio.timeout(seconds):
                return await self._asked(texts, self._usual_seconds)
        except TimeoutError as late:
            raise Unavailable("embeddings came too late for this text") from late

    async def _asked(self, texts: Sequence[str], seconds: float) -> list[Sequence[float]]:
        return await self._dependency.ask(lambda: self._embedded(texts, seconds), timeout_seconds=seconds)

    async def _embedded(self, texts: Sequence[str], seconds: float) -> list[Sequence[float]]:
        purpose = inference_pb2.EMBEDDING_PURPOSE_QUERY
        request = inference_pb2.EmbedTextRequest(model=MODEL, texts=texts, purpose=purpose, adapter=self._adapter)
        response = await self._inference.EmbedText(request, timeout=seconds)
        if response.adapter != self._adapter:
            raise Unusable(f"{MODEL} was asked for adapter {self._adapter!r} and used {response.adapter!r}")
        vectors: list[Sequence[float]] = [each.values for each in response.embeddings]
        if [len(each) for each in vectors] != [DIMENSIONS] * len(texts):
            raise Unusable(f"{MODEL} made {len(vectors)} vectors of {len(texts)} texts, or not of {DIMENSIONS} numbers")
        return vectors
