"""The cache's RPCs: decode, ask, encode."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable

from google.protobuf.duration_pb2 import Duration

from llmmesh.cache.v1 import cache_pb2, cache_pb2_grpc
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import CredentialInvalid, DependencyUnavailable, FieldInvalid, RoleMissing
from meshkit.identity import current_identity
from meshkit.server import Context
from services.cache.answers import AnswerCache, Found
from services.cache.errorbound import NEVER, BoundState
from services.cache.feedback import Feedback
from services.cache.metrics import LOOKUP_SECONDS, LOOKUPS, SIMILARITY
from services.cache.purging import QUESTION_CHARACTERS
from services.cache.statistics import KEPT_DAYS, OUTCOMES

LONGEST_LEASE_SECONDS = 600
LONGEST_TTL_SECONDS = 30 * 24 * 3600
MOST_USES = 1000
LONGEST_REQUEST_ID = 200
USUAL_DAYS = 7
VERDICTS = ("right", "wrong")
ADMIN = "admin"
ENTRY_ID = re.compile(r"[A-Za-z0-9_.~%-]+:[0-9a-f]{48}")


class CacheServicer(cache_pb2_grpc.CacheServiceServicer):
    """The cache over the wire. The tenant is always the caller's own, save for an admin's purge."""

    def __init__(self, answers: AnswerCache, feedback: Feedback) -> None:
        self._feedback = feedback
        self._exact = _Lookup("exact", answers.find_exact)
        self._semantic = _Lookup("semantic", answers.find_semantic)
        self._answers = answers

    async def LookupAnswer(
        self, request: cache_pb2.LookupAnswerRequest, context: Context
    ) -> cache_pb2.LookupAnswerResponse:
        """Look an answer up at one level; a store that is away is a miss with `unavailable` set."""
        _check_prompt(request.prompt)
        if request.HasField("lease"):
            _check_lease(request)
        found = await self._level(request.level)(_tenant_id(), request)
        return cache_pb2.LookupAnswerResponse(
            answer=found.answer,
            copy_for=_duration(found.copy_seconds) if found.answer is not None else None,
            similarity=found.similarity,
            unavailable=found.unavailable,
            lease_id=found.lease_id,
            leased_elsewhere=found.leased_elsewhere,
        )

    async def StoreAnswer(
        self, request: cache_pb2.StoreAnswerRequest, context: Context
    ) -> cache_pb2.StoreAnswerResponse:
        """Remember an answer where that is allowed."""
        _check_prompt(request.prompt)
        if not request.HasField("answer"):
            raise FieldInvalid("answer", "must hold the answer to remember")
        if request.HasField("ttl") and not 0 < request.ttl.ToNanoseconds() / 1e9 <= LONGEST_TTL_SECONDS:
            raise FieldInvalid("ttl", f"must be more than 0 and at most {LONGEST_TTL_SECONDS} seconds")
        return cache_pb2.StoreAnswerResponse(levels=await self._answers.remember(_tenant_id(), request))

    async def ReleaseLease(
        self, request: cache_pb2.ReleaseLeaseRequest, context: Context
    ) -> cache_pb2.ReleaseLeaseResponse:
        """Let others answer, or stop waiting for an answer that will not come."""
        await self._answers.release(_tenant_id(), request.lease_id)
        return cache_pb2.ReleaseLeaseResponse()

    async def PurgeAnswers(
        self, request: cache_pb2.PurgeAnswersRequest, context: Context
    ) -> cache_pb2.PurgeAnswersResponse:
        """Forget a tenant's answers; fails when a level could not be reached, for an erasure must not look done."""
        _check_purge(request)
        forgotten = await self._answers.purge(_tenant_asked_for(request.tenant_id), request)
        if forgotten.away:
            raise DependencyUnavailable(
                f"The {' and the '.join(forgotten.away)} level could not be purged: retry in a moment.",
                retry_after_seconds=2,
                levels=" ".join(forgotten.away),
            )
        return cache_pb2.PurgeAnswersResponse(
            exact_count=forgotten.exact_count, semantic_count=forgotten.semantic_count
        )

    async def RecordUses(self, request: cache_pb2.RecordUsesRequest, context: Context) -> cache_pb2.RecordUsesResponse:
        """Count uses and note what answered which request."""
        if len(request.uses) > MOST_USES:
            raise FieldInvalid("uses", f"must hold at most {MOST_USES}")
        for index, use in enumerate(request.uses):
            if use.outcome not in OUTCOMES or not use.tenant_id:
                raise FieldInvalid(f"uses[{index}]", f"must name a tenant and one of {', '.join(OUTCOMES)}")
        await self._feedback.record(request.uses)
        return cache_pb2.RecordUsesResponse()

    async def ReportHit(self, request: cache_pb2.ReportHitRequest, context: Context) -> cache_pb2.ReportHitResponse:
        """Remove a wrong answer and learn from the report."""
        if not 0 < len(request.request_id) <= LONGEST_REQUEST_ID:
            raise FieldInvalid("request_id", "must be the x-request-id of an answer from the cache")
        if request.verdict not in VERDICTS:
            raise FieldInvalid("verdict", f"must be {' or '.join(VERDICTS)}")
        return await self._feedback.report(_tenant_id(), request.request_id, right=request.verdict == VERDICTS[0])

    async def GetCacheStats(
        self, request: cache_pb2.GetCacheStatsRequest, context: Context
    ) -> cache_pb2.GetCacheStatsResponse:
        """What the cache did for a tenant."""
        if not 0 <= request.days <= KEPT_DAYS:
            raise FieldInvalid("days", f"must be from 0 to {KEPT_DAYS}")
        tenant_id = _tenant_asked_for(request.tenant_id)
        models = await self._feedback.stats(tenant_id, request.model, request.days or USUAL_DAYS)
        return cache_pb2.GetCacheStatsResponse(models=models)

    async def GetErrorBound(
        self, request: cache_pb2.GetErrorBoundRequest, context: Context
    ) -> cache_pb2.GetErrorBoundResponse:
        """How sure a semantic hit must be, and why."""
        return _bound(self._feedback.bound(_tenant_asked_for(request.tenant_id)))

    def _level(self, level: cache_pb2.CacheLevel.ValueType) -> _Lookup:
        if level == cache_pb2.CACHE_LEVEL_EXACT:
            return self._exact
        if level == cache_pb2.CACHE_LEVEL_SEMANTIC:
            return self._semantic
        raise FieldInvalid("level", "must be CACHE_LEVEL_EXACT or CACHE_LEVEL_SEMANTIC")


class _Lookup:
    """A level's lookup, measured."""

    def __init__(self, level: str, find: Callable[[str, cache_pb2.LookupAnswerRequest], Awaitable[Found]]) -> None:
        self._find = find
        self._outcomes = {outcome: LOOKUPS.labels(level, outcome) for outcome in ("hit", "miss", "unavailable")}
        self._seconds = LOOKUP_SECONDS.labels(level)

    async def __call__(self, tenant_id: str, request: cache_pb2.LookupAnswerRequest) -> Found:
        started = time.perf_counter()
        found = await self._find(tenant_id, request)
        self._seconds.observe(time.perf_counter() - started)
        self._outcomes[found.outcome].inc()
        if found.similarity:
            SIMILARITY.observe(found.similarity)
        return found


def _duration(seconds: float) -> Duration | None:
    if not seconds:
        return None
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration


def _bound(state: BoundState) -> cache_pb2.GetErrorBoundResponse:
    return cache_pb2.GetErrorBoundResponse(
        target=state.target,
        confidence=state.confidence,
        threshold=None if state.threshold == NEVER else state.threshold,
        false_hit_rate_at_most=state.upper_bound,
        false_hit_rate=state.estimate,
        judged=state.judged,
        served=state.served,
        wrong=state.wrong,
        reported_right=state.reported_right,
        reported_wrong=state.reported_wrong,
    )


def _check_prompt(prompt: chat_pb2.ChatPrompt) -> None:
    if not prompt.model:
        raise FieldInvalid("prompt.model", "must name the model")
    if not prompt.messages:
        raise FieldInvalid("prompt.messages", "must hold at least one message")


def _check_lease(request: cache_pb2.LookupAnswerRequest) -> None:
    for field, least in (("lease", 1), ("wait", 0)):
        duration: Duration = getattr(request, field)
        if not least <= duration.ToMilliseconds() <= LONGEST_LEASE_SECONDS * 1000:
            raise FieldInvalid(field, f"must be at most {LONGEST_LEASE_SECONDS} seconds")


def _check_purge(request: cache_pb2.PurgeAnswersRequest) -> None:
    if len(request.question_prefix) > QUESTION_CHARACTERS:
        raise FieldInvalid("question_prefix", f"must be at most {QUESTION_CHARACTERS} characters")
    if request.HasField("min_age") and request.min_age.ToNanoseconds() < 0:
        raise FieldInvalid("min_age", "must not be negative")
    if request.entry_id and not ENTRY_ID.fullmatch(request.entry_id):
        raise FieldInvalid("entry_id", "must be the entry id of a cached answer")


def _tenant_id() -> str:
    tenant_id = current_identity().tenant_id
    if not tenant_id:
        raise CredentialInvalid("The cache belongs to tenants: this call carries no tenant.")
    return tenant_id


def _tenant_asked_for(asked_id: str) -> str:
    if not asked_id or asked_id == current_identity().tenant_id:
        return _tenant_id()
    if ADMIN not in current_identity().roles:
        raise RoleMissing(f"The answers of tenant {asked_id!r} need the role {ADMIN}.", tenant=asked_id, roles=ADMIN)
    return asked_id
