"""Vectors of questions, from the inference service."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING

from grpc.aio import AioRpcError

from llmmesh.inference.v1 import inference_pb2
from meshkit.deadline import time_left
from services.cache.dependency import Dependency, Unavailable, Unusable

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub


class Embedder:
    """Embeds questions and keeps the last vectors, so that storing after a lookup costs nothing."""

    def __init__(
        self,
        inference: InferenceServiceAsyncStub,
        *,
        model: str,
        dimensions: int,
        timeout_seconds: float,
        kept: int,
        at_once: int,
    ) -> None:
        self._inference = inference
        self._model = model
        self._dimensions = dimensions
        self._timeout_seconds = timeout_seconds
        self._kept = kept
        self._at_once = at_once
        self._under_way = 0
        self._vectors: OrderedDict[bytes, array[float]] = OrderedDict()
        self._dependency = Dependency("embeddings", faults=(AioRpcError,))

    async def vector(self, text: str) -> list[float]:
        """The vector of `text`, of length 1.

        Raises:
            Unavailable: If the model is away, warming or late, or too many embeddings are under way.
        """
        digest = blake2b(text.encode(), digest_size=16).digest()
        known = self._vectors.get(digest)
        if known is not None:
            self._vectors.move_to_end(digest)
            return known.tolist()
        vector = await self._embed(text)
        self._keep(digest, vector)
        return vector.tolist()

    async def _embed(self, text: str) -> array[float]:
        if self._under_way >= self._at_once:
            raise Unavailable("too many embeddings are under way")
        self._under_way += 1
        try:
            timeout_seconds = time_left(self._timeout_seconds)
            return await self._dependency.ask(
                lambda: self._call(text, timeout_seconds), timeout_seconds=timeout_seconds
            )
        finally:
            self._under_way -= 1

    async def _call(self, text: str, timeout_seconds: float) -> array[float]:
        request = inference_pb2.EmbedTextRequest(
            model=self._model, texts=[text], purpose=inference_pb2.EMBEDDING_PURPOSE_QUERY
        )
        answer = await self._inference.EmbedText(request, timeout=timeout_seconds)
        vectors = [array("f", embedding.values) for embedding in answer.embeddings]
        if len(vectors) != 1 or len(vectors[0]) != self._dimensions:
            lengths = [len(vector) for vector in vectors]
            raise Unusable(f"{self._model!r} made vectors of {lengths} numbers, not of {self._dimensions}")
        return vectors[0]

    def _keep(self, digest: bytes, vector: array[float]) -> None:
        self._vectors[digest] = vector
        if len(self._vectors) > self._kept:
            self._vectors.popitem(last=False)
