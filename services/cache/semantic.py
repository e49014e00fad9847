"""The semantic level: the same question in other words."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

from services.cache.keys import Question
from services.cache.metrics import VETOES
from services.cache.vectorstores.port import Entry, Match, Near, Selection, VectorStore

if TYPE_CHECKING:
    from services.cache.embedding import Embedder
    from services.cache.verification.verifier import Verifier

Vetoed: TypeAlias = Callable[[str, str, str], None]
"""Is told the tenant, model and check of each refusal by the verifier."""

MOST_SERVED = 10_000
"""Entries whose use is noted between two sweeps."""


@dataclass(frozen=True, slots=True)
class SemanticLimits:
    """What may be a semantic hit."""

    similarity_threshold: float
    candidates: int
    longest_question_characters: int
    most_entries: int
    """Of all tenants together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer written down, and what is known of it."""

    entry: bytes
    reference: str
    """What it is called at both levels."""
    subject: str
    saves: float
    """What each use saves, in micro-units of money; at least 1."""


class SemanticCache:
    """Finds a verified answer to the same question in other words, within one tenant and one context."""

    def __init__(
        self,
        embedder: Embedder,
        store: VectorStore,
        verifier: Verifier,
        limits: SemanticLimits,
        clock: Callable[[], float],
        vetoed: Vetoed,
    ) -> None:
        self._embedder = embedder
        self._store = store
        self._verifier = verifier
        self._limits = limits
        self._clock = clock
        self._vetoed = vetoed
        self._worths: dict[str, float] = {}

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
                self._served(match)
                return match
            VETOES.labels(veto).inc()
            self._vetoed(tenant_id, question.model, veto)
        return None

    async def remember(self, tenant_id: str, question: Question, answer: Answer, *, ttl_seconds: float) -> None:
        """Store an answer; the same question in the same context replaces it.

        Raises:
            Unavailable: If the embeddings or the store are away.
        """
        entry = Entry(
            entry_id=_entry_id(tenant_id, question),
            vector=await self._embedder.vector(question.text),
            tenant_id=tenant_id,
            model=question.model,
            context=question.context,
            question=question.text,
            answer=answer.entry,
            stored_at=self._clock(),
            expires_at=self._clock() + ttl_seconds,
            reference=answer.reference,
            subject=answer.subject,
            worth=answer.saves,
            saves=answer.saves,
        )
        await self._store.put(entry)

    async def forget(self, selection: Selection, *, dry_run: bool) -> int:
        """Remove the answers of a selection, or only count them; returns how many. Raises Unavailable."""
        return await self._store.forget(selection, dry_run=dry_run)

    async def keep_the_best(self) -> int:
        """Note which answers were served, and remove those that save least until the rest is within bounds.

        Returns how many went. Raises Unavailable; what was noted is then lost, and counts anew.
        """
        worths, self._worths = self._worths, {}
        if worths:
            await self._store.reprice(worths)
        return await self._store.forget_cheapest(self._limits.most_entries)

    async def forget_expired(self) -> int:
        """Remove expired answers; returns how many. Raises Unavailable."""
        return await self._store.forget_expired(self._clock())

    def _served(self, match: Match) -> None:
        """An answer is worth what it saves each time, times the times: those served often and dear stay longest."""
        if len(self._worths) < MOST_SERVED:
            worth, saves = self._worths.get(match.entry_id, match.worth), max(match.saves, 1.0)
            self._worths[match.entry_id] = worth + saves


def _entry_id(tenant_id: str, question: Question) -> str:
    words = " ".join(unicodedata.normalize("NFKC", question.text).casefold().split())
    parts = "\x00".join((tenant_id, question.context, words))
    return str(uuid.UUID(bytes=blake2b(parts.encode(), digest_size=16).digest()))
