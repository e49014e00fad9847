"""The semantic level: the same question in other words."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from services.cache.keys import Question
from services.cache.metrics import VETOES
from services.cache.vectorstores.port import Entry, Match, Near, VectorStore

if TYPE_CHECKING:
    from services.cache.embedding import Embedder
    from services.cache.verification.verifier import Verifier


@dataclass(frozen=True, slots=True)
class SemanticLimits:
    """What may be a semantic hit."""

    similarity_threshold: float
    candidates: int
    longest_question_characters: int


class SemanticCache:
    """Finds a verified answer to the same question in other words, within one tenant and one context."""

    def __init__(
        self,
        embedder: Embedder,
        store: VectorStore,
        verifier: Verifier,
        limits: SemanticLimits,
        clock: Callable[[], float],
    ) -> None:
        self._embedder = embedder
        self._store = store
        self._verifier = verifier
        self._limits = limits
        self._clock = clock

    def takes(self, question: Question | None) -> bool:
        """Whether the level handles the question at all."""
        return question is not None and len(question.text) <= self._limits.longest_question_characters

    async def find(self, tenant_id: str, question: Question) -> Match | None:
        """The most similar entry that asks the same; None on a miss.

        Raises:
            Unavailable: If the embeddings or the store are away.
        """
        near = Near(
            vector=await self._embedder.vector(question.text),
            tenant_id=tenant_id,
            context=question.context,
            now=self._clock(),
            at_least=self._limits.similarity_threshold,
            limit=self._limits.candidates,
        )
        for match in await self._store.nearest(near):
            veto = await self._verifier.veto(question.text, match.question)
            if veto is None:
                return match
            VETOES.labels(veto).inc()
        return None

    async def remember(
        self, tenant_id: str, model: str, question: Question, answer: bytes, *, ttl_seconds: float
    ) -> None:
        """Store an answer; the same question in the same context replaces it.

        Raises:
            Unavailable: If the embeddings or the store are away.
        """
        entry = Entry(
            entry_id=_entry_id(tenant_id, question),
            vector=await self._embedder.vector(question.text),
            tenant_id=tenant_id,
            model=model,
            context=question.context,
            question=question.text,
            answer=answer,
            expires_at=self._clock() + ttl_seconds,
        )
        await self._store.put(entry)

    async def forget(self, tenant_id: str, model: str) -> int:
        """Remove a tenant's answers, or those of one model; returns how many. Raises Unavailable."""
        return await self._store.forget(tenant_id, model)

    async def forget_expired(self) -> int:
        """Remove expired answers; returns how many. Raises Unavailable."""
        return await self._store.forget_expired(self._clock())


def _entry_id(tenant_id: str, question: Question) -> str:
    words = " ".join(unicodedata.normalize("NFKC", question.text).casefold().split())
    parts = "\x00".join((tenant_id, question.context, words))
    return str(uuid.UUID(bytes=blake2b(parts.encode(), digest_size=16).digest()))
