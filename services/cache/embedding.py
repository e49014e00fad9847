"""Vectors of questions and of their tokens, from the inference service."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from llmmesh.inference.v1 import inference_pb2
from meshkit.dependency import Unavailable, Unusable
from services.cache.modelcalls import ModelCalls
from services.cache.verification.alignment import DEPTHS, DIMENSIONS, TokenVectors

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub


LARGEST_BATCH = 16
MOST_WAITING = 1024
"""Questions to be stored that wait for their vectors; more are not stored."""
STORING_SECONDS = 10.0
"""Longest that a batch may take: nobody's answer waits for it."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A question as the model sees it."""

    vector: array[float]
    """Of length 1."""
    tokens: bytes
    """What the model sees in its tokens; empty when there are none or too many."""


class Embedder:
    """Embeds questions and keeps the last, so that storing after a lookup costs nothing."""

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
        self._kept = kept
        self._made: OrderedDict[bytes, Embedded] = OrderedDict()
        self._waiting: deque[tuple[str, asyncio.Future[Embedded]]] = deque()
        self._arrived = asyncio.Event()
        self._calls = ModelCalls("embeddings", timeout_seconds=timeout_seconds, at_once=at_once)

    async def embedded(self, text: str) -> Embedded:
        """`text` as the model sees it.

        Raises:
            Unavailable: If the model is away, warming or late, or too many embeddings are under way.
        """
        digest = _digest(text)
        known = self._made.get(digest)
        if known is not None:
            self._made.move_to_end(digest)
            return known
        (made,) = await self._calls.ask(lambda seconds: self._embed([text], seconds))
        self._keep(digest, made)
        return made

    async def embedded_to_store(self, text: str) -> Embedded:
        """As `embedded`, but off the path of any answer: with what else waits, in one batch; needs `serve_stores`.

        Raises:
            Unavailable: If the model is away or late, or too much waits.
        """
        digest = _digest(text)
        known = self._made.get(digest)
        if known is not None:
            return known
        if len(self._waiting) >= MOST_WAITING:
            raise Unavailable("too many questions wait to be embedded")
        made: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, made))
        self._arrived.set()
        self._keep(digest, await made)
        return made.result()

    async def serve_stores(self) -> None:
        """Embed batches for `embedded_to_store` until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._serve_batch(
                    [self._waiting.popleft() for _ in range(min(LARGEST_BATCH, len(self._waiting)))]
                )

    async def _serve_batch(self, batch: Sequence[tuple[str, asyncio.Future[Embedded]]]) -> None:
        wanted = [(text, made) for text, made in batch if not made.done()]
        try:
            answers = await self._calls.dependency.ask(
                lambda: self._embed([text for text, _ in wanted], STORING_SECONDS), timeout_seconds=STORING_SECONDS
            )
        except Unavailable as error:
            for _, made in wanted:
                if not made.done():
                    made.set_exception(Unavailable(str(error)))
            return
        for (_, made), answer in zip(wanted, answers, strict=True):
            if not made.done():
                made.set_result(answer)

    async def _embed(self, texts: Sequence[str], timeout_seconds: float) -> list[Embedded]:
        request = inference_pb2.EmbedTextRequest(
            model=self._model, texts=texts, purpose=inference_pb2.EMBEDDING_PURPOSE_QUERY, token_vectors=True
        )
        answer = await self._inference.EmbedText(request, timeout=timeout_seconds)
        made = [Embedded(array("f", one.values), packed_tokens(one)) for one in answer.embeddings]
        lengths = [len(each.vector) for each in made]
        if lengths != [self._dimensions] * len(texts):
            raise Unusable(f"{self._model!r} made vectors of {lengths} numbers, not {len(texts)} of {self._dimensions}")
        return made

    def _keep(self, digest: bytes, made: Embedded) -> None:
        self._made[digest] = made
        if len(self._made) > self._kept:
            self._made.popitem(last=False)


def packed_tokens(embedding: inference_pb2.Embedding) -> bytes:
    """What an embedding says of the tokens, as it is kept; empty when it says nothing. Raises Unusable."""
    made = embedding.tokens
    if not made.rarities:
        return b""
    shape = len(made.rarities), made.depths, DIMENSIONS
    if made.depths < len(DEPTHS) or len(made.values) != math.prod(shape):
        raise Unusable(f"tokens of {made.depths} x {made.dimensions} numbers, not of {DIMENSIONS} at several depths")
    states = np.frombuffer(made.values, np.int8).reshape(shape)
    return TokenVectors.outermost(made.basis, states, np.array(made.rarities, dtype=np.float32)).packed


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()
