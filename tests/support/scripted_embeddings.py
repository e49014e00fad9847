"""An inference service whose embeddings follow a script: a real server for tests without a model."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re

from llmmesh.inference.v1 import inference_pb2, inference_pb2_grpc
from meshkit.errors import ModelWarming
from meshkit.server import Context
from services.cache.verification.weighing import Weighing

DIMENSIONS = 64
TOKEN_DEPTHS, TOKEN_DIMENSIONS = 3, 64
MOST_WORDS = 100
SURE = 8.0
"""Log-odds of a pair of which the script says nothing."""


class ScriptedEmbeddings(inference_pb2_grpc.InferenceServiceServicer):
    """Texts of one group get one vector, any other text one of its own, far from all others; a word is one token."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """Every text that was embedded."""
        self.read: list[tuple[str, str]] = []
        """Every pair that the cross-encoder read."""
        self.scorer = Weighing.packaged().scorer
        """The cross-encoder that there is."""
        self.basis = "first"
        """What the vectors of tokens were reduced to."""
        self.warming = False
        self.going_on = asyncio.Event()
        """Clear it to let questions wait for their vectors."""
        self.going_on.set()
        self._groups: dict[str, str] = {}
        self._doubted: set[str] = set()

    def alike(self, *texts: str) -> None:
        """Make these texts equal to the model, whatever they say."""
        for text in texts:
            self._groups[text] = texts[0]

    def doubt(self, *texts: str) -> None:
        """Let the cross-encoder find that these texts ask the same as no other."""
        self._doubted.update(texts)

    async def EmbedText(
        self, request: inference_pb2.EmbedTextRequest, context: Context
    ) -> inference_pb2.EmbedTextResponse:
        """Embed by script."""
        if self.warming:
            raise ModelWarming("The model is loading.", retry_after_seconds=1)
        self.asked.extend(request.texts)
        await self.going_on.wait()
        made = [self._embedding(text, request.token_vectors) for text in request.texts]
        return inference_pb2.EmbedTextResponse(embeddings=made, model=request.model)

    async def ScorePairs(
        self, request: inference_pb2.ScorePairsRequest, context: Context
    ) -> inference_pb2.ScorePairsResponse:
        """Score by script."""
        if self.warming:
            raise ModelWarming("The model is loading.", retry_after_seconds=1)
        self.read.extend((request.text, other) for other in request.others)
        log_odds = [-SURE if self._doubted & {request.text, other} else SURE for other in request.others]
        return inference_pb2.ScorePairsResponse(log_odds=log_odds, scorer=self.scorer)

    def _embedding(self, text: str, token_vectors: bool) -> inference_pb2.Embedding:
        """The vector of its group, and tokens of its own: none if there are many, as with the real model."""
        words = re.findall(r"\w+", text.lower())
        tokens = _tokens(words, self.basis) if token_vectors and len(words) <= MOST_WORDS else None
        return inference_pb2.Embedding(values=_vector(self._groups.get(text, text)), tokens=tokens)


def _tokens(words: list[str], basis: str) -> inference_pb2.TokenVectors:
    values = b"".join(random.Random(word).randbytes(TOKEN_DEPTHS * TOKEN_DIMENSIONS) for word in words)
    return inference_pb2.TokenVectors(
        values=values,
        depths=TOKEN_DEPTHS,
        dimensions=TOKEN_DIMENSIONS,
        rarities=[0.2 + len(word) / 2 for word in words],
        basis=basis,
    )


def _vector(text: str) -> list[float]:
    chance = random.Random(hashlib.blake2b(text.encode()).digest())
    vector = [chance.gauss(0, 1) for _ in range(DIMENSIONS)]
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector]
