"""Looks answers up, remembers and forgets them, at both levels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.log import get_logger
from services.cache.admission import exact_refusal, semantic_refusal
from services.cache.codec import EntryCorrupt, pack, unpack
from services.cache.dependency import Unavailable
from services.cache.keys import exact_key, question_of
from services.cache.metrics import CORRUPT, STORES
from services.cache.semantic import SemanticCache

if TYPE_CHECKING:
    from services.cache.exact import ExactStore

Level: TypeAlias = cache_pb2.CacheLevel.ValueType

log = get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """What a lookup came to."""

    answer: cache_pb2.CachedAnswer | None = None
    similarity: float = 0.0
    unavailable: bool = False

    @property
    def outcome(self) -> str:
        """One word for the metrics."""
        if self.unavailable:
            return "unavailable"
        return "miss" if self.answer is None else "hit"


MISS = Found()
AWAY = Found(unavailable=True)


@dataclass(slots=True)
class Forgotten:
    """How many answers a purge removed, and what it could not reach."""

    exact_count: int = 0
    semantic_count: int = 0
    away: list[str] = field(default_factory=list)


class AnswerCache:
    """Both levels behind one door. A level that is away is a miss, and never an error, except to a purge."""

    def __init__(
        self, exact: ExactStore, semantic: SemanticCache, *, ttl_seconds: float, largest_answer_bytes: int
    ) -> None:
        self._exact = exact
        self._semantic = semantic
        self._ttl_seconds = ttl_seconds
        self._largest_answer_bytes = largest_answer_bytes

    async def find_exact(self, tenant_id: str, prompt: chat_pb2.ChatPrompt, policy: str) -> Found:
        """The answer to these very bytes."""
        try:
            entry = await self._exact.get(exact_key(tenant_id, prompt, policy))
        except Unavailable:
            return AWAY
        return MISS if entry is None else _found(entry, "exact")

    async def find_semantic(self, tenant_id: str, prompt: chat_pb2.ChatPrompt, policy: str) -> Found:
        """The verified answer to the same question in other words."""
        question = question_of(prompt, policy)
        if question is None or not self._semantic.takes(question):
            return MISS
        try:
            match = await self._semantic.find(tenant_id, question)
        except Unavailable:
            return AWAY
        return MISS if match is None else _found(match.answer, "semantic", match.similarity)

    async def remember(self, tenant_id: str, request: cache_pb2.StoreAnswerRequest) -> list[Level]:
        """Remember an answer where it is allowed and possible; returns where."""
        refusal = exact_refusal(request, largest_bytes=self._largest_answer_bytes)
        if refusal:
            STORES.labels("exact", refusal).inc()
            return []
        ttl_seconds = request.ttl.ToNanoseconds() / 1e9 if request.HasField("ttl") else self._ttl_seconds
        entry = pack(request.answer)
        levels: list[Level] = []
        if await self._remember_exact(tenant_id, request, entry, ttl_seconds):
            levels.append(cache_pb2.CACHE_LEVEL_EXACT)
        if await self._remember_semantic(tenant_id, request, entry, ttl_seconds):
            levels.append(cache_pb2.CACHE_LEVEL_SEMANTIC)
        return levels

    async def forget(self, tenant_id: str, model: str) -> Forgotten:
        """Remove a tenant's answers, or those of one model, at both levels."""
        forgotten = Forgotten()
        try:
            forgotten.exact_count = await self._exact.forget(tenant_id, model)
        except Unavailable:
            forgotten.away.append("exact")
        try:
            forgotten.semantic_count = await self._semantic.forget(tenant_id, model)
        except Unavailable:
            forgotten.away.append("semantic")
        return forgotten

    async def _remember_exact(
        self, tenant_id: str, request: cache_pb2.StoreAnswerRequest, entry: bytes, ttl_seconds: float
    ) -> bool:
        key = exact_key(tenant_id, request.prompt, request.guard_policy_version)
        try:
            await self._exact.put(key, entry, ttl_seconds=ttl_seconds)
        except Unavailable:
            STORES.labels("exact", "unavailable").inc()
            return False
        STORES.labels("exact", "stored").inc()
        return True

    async def _remember_semantic(
        self, tenant_id: str, request: cache_pb2.StoreAnswerRequest, entry: bytes, ttl_seconds: float
    ) -> bool:
        question = question_of(request.prompt, request.guard_policy_version)
        refusal = semantic_refusal(request) or ("" if self._semantic.takes(question) else "question")
        if question is None or refusal:
            STORES.labels("semantic", refusal).inc()
            return False
        try:
            await self._semantic.remember(tenant_id, request.prompt.model, question, entry, ttl_seconds=ttl_seconds)
        except Unavailable:
            STORES.labels("semantic", "unavailable").inc()
            return False
        STORES.labels("semantic", "stored").inc()
        return True


def _found(entry: bytes, level: str, similarity: float = 0.0) -> Found:
    try:
        return Found(unpack(entry), similarity)
    except EntryCorrupt as error:
        CORRUPT.labels(level).inc()
        log.warning("entry_corrupt", level=level, error=str(error))
        return MISS
