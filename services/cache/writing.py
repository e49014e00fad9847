"""Writes answers down, at both levels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llmmesh.cache.v1 import cache_pb2
from meshkit.dependency import Unavailable
from meshkit.log import get_logger
from services.cache.admission import Limits, exact_refusal, lifetime_seconds, semantic_refusal
from services.cache.codec import Codec
from services.cache.keys import Question, entry_id_of, exact_key, question_of
from services.cache.metrics import STORES
from services.cache.purging import QUESTION_CHARACTERS, notes_on, subjects_of
from services.cache.sealing import Seals
from services.cache.semantic import Answer, SemanticCache
from services.cache.vectorstores.port import Selection

if TYPE_CHECKING:
    from services.cache.exact import ExactStore

log = get_logger()

Level: TypeAlias = cache_pb2.CacheLevel.ValueType

PURGED = "purged"
WRITE_PAUSES_SECONDS = (0.15, 0.35)
"""Before another attempt to write; longer than the breaker's first pauses."""
WITHDRAW_PAUSES_SECONDS = (*WRITE_PAUSES_SECONDS, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Before another attempt to withdraw; together longer than a store takes to come back with what it had."""


@dataclass(frozen=True, slots=True)
class _Order:
    """An answer that may be written down."""

    tenant_id: str
    request: cache_pb2.StoreAnswerRequest
    stored: cache_pb2.StoredAnswer
    ttl_seconds: float
    asked: float
    """When the question was asked, in Unix seconds; a purge since then forbids the answer."""


class AnswerWriter:
    """Writes what may be kept. A purge that begins while an answer is on its way wins over it."""

    def __init__(
        self,
        exact: ExactStore,
        semantic: SemanticCache,
        seals: Seals,
        codec: Codec,
        limits: Limits,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._exact = exact
        self._semantic = semantic
        self._seals = seals
        self._codec = codec
        self._limits = limits
        self._clock = clock
        self._writing: set[asyncio.Task[str]] = set()

    async def write(self, tenant_id: str, request: cache_pb2.StoreAnswerRequest) -> list[Level]:
        """Write an answer where it is allowed and possible; returns where."""
        limits = self._limits.within(request.limits)
        refusal = exact_refusal(request, limits)
        if refusal:
            STORES.labels("exact", refusal).inc()
            return []
        key = exact_key(tenant_id, request.prompt, request.guard_policy_version)
        asked = request.question_time.ToNanoseconds() / 1e9 if request.HasField("question_time") else self._clock()
        stored = self._stored(tenant_id, key, request)
        order = _Order(tenant_id, request, stored, lifetime_seconds(request, limits), asked)
        exact = await self._write_exact(order, key)
        outcomes = {
            cache_pb2.CACHE_LEVEL_EXACT: exact,
            cache_pb2.CACHE_LEVEL_SEMANTIC: exact if exact == PURGED else await self._write_semantic(order),
        }
        for level, outcome in outcomes.items():
            STORES.labels(cache_pb2.CacheLevel.Name(level).removeprefix("CACHE_LEVEL_").lower(), outcome).inc()
        return [level for level, outcome in outcomes.items() if outcome == "stored"]

    def _stored(self, tenant_id: str, key: str, request: cache_pb2.StoreAnswerRequest) -> cache_pb2.StoredAnswer:
        """The answer with where it comes from."""
        answer = request.answer
        answer.create_time.FromNanoseconds(int(self._clock() * 1e9))
        answer.model = request.prompt.model
        answer.guard_policy_version = request.guard_policy_version
        answer.entry_id = entry_id_of(tenant_id, key)
        question = question_of(request.prompt, request.guard_policy_version)
        return cache_pb2.StoredAnswer(
            answer=answer,
            question=question.text[:QUESTION_CHARACTERS] if question else "",
            subject=" ".join(self._seals.pseudonym(tenant_id, name) for name in subjects_of(request.prompt)),
        )

    async def _write_exact(self, order: _Order, key: str) -> str:
        """What came of it, in one word."""
        entry = self._codec.pack(order.stored, order.tenant_id, key)
        notes = notes_on(order.tenant_id, order.stored)
        for pause_seconds in (*WRITE_PAUSES_SECONDS, 0.0):
            try:
                written = await self._exact.put(
                    key, entry, ttl_seconds=order.ttl_seconds, notes=notes, asked=order.asked
                )
            except Unavailable:
                await asyncio.sleep(pause_seconds)
            else:
                return "stored" if written else PURGED
        return "unavailable"

    async def _write_semantic(self, order: _Order) -> str:
        question = question_of(order.request.prompt, order.request.guard_policy_version)
        refusal = semantic_refusal(order.request) or ("" if self._semantic.takes(question) else "question")
        if question is None or refusal:
            return refusal
        answer = Answer(
            entry=self._codec.pack(order.stored, order.tenant_id, question.place),
            reference=order.stored.answer.entry_id,
            subject=order.stored.subject,
            sealed_by=self._seals.name,
            saves=max(1.0, order.stored.answer.cost_micros),
        )
        # Who wanted it stored may leave meanwhile; that it is not there after a purge is seen to all the same.
        writing = asyncio.create_task(self._put_unless_purged(order, question, answer))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return await asyncio.shield(writing)

    async def _put_unless_purged(self, order: _Order, question: Question, answer: Answer) -> str:
        outcome = "unavailable"
        with suppress(Unavailable):  # it may be there all the same
            kept = await self._semantic.remember(order.tenant_id, question, answer, ttl_seconds=order.ttl_seconds)
            outcome = "stored" if kept else "question"
        purged = await self._was_purged(order)
        if purged or (purged is None and outcome == "stored"):
            await self._withdraw(Selection(order.tenant_id, reference=answer.reference))
            return PURGED if purged else "unavailable"
        return outcome

    async def _withdraw(self, selection: Selection) -> None:
        """Remove from the semantic level what a purge has missed, for it was only just written."""
        for pause_seconds in (*WITHDRAW_PAUSES_SECONDS, 0.0):
            try:
                await self._semantic.forget(selection, dry_run=False)
            except Unavailable:
                await asyncio.sleep(pause_seconds)
            else:
                return
        log.error("purged_answer_left", reference=selection.reference)

    async def _was_purged(self, order: _Order) -> bool | None:
        """Whether a purge of it began meanwhile; None while Redis is away, when nobody knows."""
        notes = notes_on(order.tenant_id, order.stored)
        for pause_seconds in (*WRITE_PAUSES_SECONDS, 0.0):
            try:
                return await self._exact.was_purged(notes, order.asked)
            except Unavailable:
                await asyncio.sleep(pause_seconds)
        return None
