"""Vectors of questions, from the inference service."""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict, deque
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from grpc.aio import AioRpcError

from llmmesh.inference.v1 import inference_pb2
from meshkit.deadline import time_left
from meshkit.dependency import Dependency, Unavailable, Unusable

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub


LARGEST_BATCH = 16
MOST_WAITING = 1024
"""Questions to be stored that wait for their vectors; more are not stored."""
STORING_SECONDS = 10.0
"""Longest that a batch may take: nobody's answer waits for it."""


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
        self._waiting: deque[tuple[str, asyncio.Future[array[float]]]] = deque()
        self._arrived = asyncio.Event()
        self._dependency = Dependency("embeddings", faults=(AioRpcError,))

    async def vector(self, text: str) -> list[float]:
        """The vector of `text`, of length 1.

        Raises:
            Unavailable: If the model is away, warming or late, or too many embeddings are under way.
        """
        digest = _digest(text)
        known = self._vectors.get(digest)
        if known is not None:
            self._vectors.move_to_end(digest)
            return known.tolist()
        vector = await self._embed(text)
        self._keep(digest, vector)
        return vector.tolist()

    async def vector_to_store(self, text: str) -> list[float]:
        """As `vector`, but off the path of any answer: with what else waits, in one batch; needs `serve_stores`.

        Raises:
            Unavailable: If the model is away or late, or too much waits.
        """
        digest = _digest(text)
        known = self._vectors.get(digest)
        if known is not None:
            return known.tolist()
        if len(self._waiting) >= MOST_WAITING:
            raise Unavailable("too many questions wait to be embedded")
        vector: asyncio.Future[array[float]] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, vector))
        self._arrived.set()
        self._keep(digest, await vector)
        return vector.result().tolist()

    async def serve_stores(self) -> None:
        """Embed batches for `vector_to_store` until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._serve_batch(
                    [self._waiting.popleft() for _ in range(min(LARGEST_BATCH, len(self._waiting)))]
                )

    async def _serve_batch(self, batch: Sequence[tuple[str, asyncio.Future[array[float]]]]) -> None:
        wanted = [(text, vector) for text, vector in batch if not vector.done()]
        try:
            vectors = await self._dependency.ask(
                lambda: self._call([text for text, _ in wanted], STORING_SECONDS), timeout_seconds=STORING_SECONDS
            )
        except Unavailable as error:
            for _, vector in wanted:
                if not vector.done():
                    vector.set_exception(Unavailable(str(error)))
            return
        for (_, vector), made in zip(wanted, vectors, strict=True):
            if not vector.done():
                vector.set_result(made)

    async def _embed(self, text: str) -> array[float]:
        if self._under_way >= self._at_once:
            raise Unavailable("too many embeddings are under way")
        self._under_way += 1
        try:
            timeout_seconds = time_left(self._timeout_seconds)
            (vector,) = await self._dependency.ask(
                lambda: self._call([text], timeout_seconds), timeout_seconds=timeout_seconds
            )
            return vector
        finally:
            self._under_way -= 1

    async def _call(self, texts: Sequence[str], timeout_seconds: float) -> list[array[float]]:
        request = inference_pb2.EmbedTextRequest(
            model=self._model, texts=texts, purpose=inference_pb2.EMBEDDING_PURPOSE_QUERY
        )
        answer = await self._inference.EmbedText(request, timeout=timeout_seconds)
        vectors = [array("f", embedding.values) for embedding in answer.embeddings]
        lengths = [len(vector) for vector in vectors]
        if lengths != [self._dimensions] * len(texts):
            raise Unusable(f"{self._model!r} made vectors of {lengths} numbers, not {len(texts)} of {self._dimensions}")
        return vectors

    def _keep(self, digest: bytes, vector: array[float]) -> None:
        self._vectors[digest] = vector
        if len(self._vectors) > self._kept:
            self._vectors.popitem(last=False)


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()
