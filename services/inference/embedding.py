"""Vectors of texts, and scores of pairs: multilingual-e5-small on the CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from services.inference.e5.adapters import NONE, load_adapters
from services.inference.e5.crossencoder import CrossEncoder
from services.inference.e5.encoder import NAME, Encoder
from services.inference.e5.tokens import Basis, TokenVectors
from services.inference.measures import EMBEDDED_TEXTS, SCORED_PAIRS
from services.inference.pool import Pool


@dataclass(frozen=True, slots=True)
class Embedded:
    """One text."""

    vector: Sequence[float]
    """Of length 1."""
    input_tokens: int
    """Read, prefix and marks included."""
    tokens: TokenVectors | None
    """If wanted, and the text is short enough."""


class Embedder:
    """One copy of the model, shared by a few threads: one text each, which makes better use of them than one on all."""

    def __init__(self, *, threads: int, max_waiting: int) -> None:
        self._threads = threads
        self._encoder = Encoder(adapters=load_adapters())
        self._crossencoder = CrossEncoder(self._encoder.inputs)
        self._basis = Basis()
        self._pool = Pool("embedding", threads=threads, max_callers=max_waiting)
        self.dimensions = self._encoder.dimensions
        self.context_tokens = self._encoder.context_tokens

    async def embed(
        self, texts: Sequence[str], *, as_query: bool, with_tokens: bool = False, adapter: str = NONE
    ) -> list[Embedded]:
        """Embed texts as questions or, with the model's other prefix, as what is searched; `adapter` is one of ours.

        A call holds at most as many places as there are threads, so that long lists let others through.

        Raises:
            RateLimited: If too many calls are under way.
        """
        embedded: list[Embedded] = []
        with self._pool.admitted():
            for start in range(0, len(texts), self._threads):
                batch = texts[start : start + self._threads]
                calls = [self._pool.run(self._compute, text, as_query, with_tokens, adapter) for text in batch]
                embedded += await asyncio.gather(*calls)
        EMBEDDED_TEXTS.labels(NAME).inc(len(texts))
        return embedded

    def _compute(self, text: str, as_query: bool, with_tokens: bool, adapter: str) -> Embedded:
        encoded = self._encoder.encode(text, as_query=as_query, states=with_tokens, adapter=adapter)
        tokens = self._basis.tokens(encoded) if with_tokens else None
        return Embedded(encoded.vector.tolist(), encoded.input_tokens, tokens)

    async def score(self, text: str, others: Sequence[str]) -> list[float]:
        """How surely `text` asks the same as each of the others: the logarithm of the odds.

        Raises:
            RateLimited: If too many calls are under way.
        """
        with self._pool.admitted():
            scores = [self._pool.run(self._crossencoder.log_odds, text, other) for other in others]
            log_odds = await asyncio.gather(*scores)
        SCORED_PAIRS.labels(self._crossencoder.name).inc(len(others))
        return log_odds

    @property
    def scorer(self) -> str:
        """What scores pairs, by name."""
        return self._crossencoder.name

    @property
    def adapters(self) -> Collection[str]:
        """The names of all adapters, that of the plain model among them."""
        return self._encoder.adapters

    @property
    def basis(self) -> str:
        """What vectors of tokens are reduced to, by name."""
        return self._basis.name

    def close(self) -> None:
        """Drop the texts that wait."""
        self._pool.close()
