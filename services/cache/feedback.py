"""Takes what became of requests, and what callers say of the answers they got from the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import orjson

from llmmesh.cache.v1 import cache_pb2
from meshkit.dependency import Unavailable
from meshkit.errors import DependencyUnavailable, ResourceNotFound
from meshkit.log import get_logger
from services.cache.answers import AnswerCache
from services.cache.evidence import disputed_at, evidence_of
from services.cache.metrics import HITS
from services.cache.purging import Forgotten
from services.cache.statistics import Tally, last_days, summed
from services.cache.vectorstores.port import Selection

if TYPE_CHECKING:
    from services.cache.errorbound import BoundState
    from services.cache.use_records import UseRecords


class Judged(Protocol):
    """The semantic level, as far as it learns from hits that were judged."""

    def certainty_served(self, tenant_id: str, entry_id: str, *, right: bool) -> float:
        """How sure the hit was."""

    def learn(self, tenant_id: str, entry_id: str, *, right: bool) -> None:
        """Which entry served the tenant, and whether it was right."""

    def bound_state(self, tenant_id: str) -> BoundState:
        """How sure a hit must be, and why."""


FLUSH_SECONDS = 1.0
SERVED = ("exact", "semantic")
"""Outcomes that are an answer from the cache, by its level."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class Source:
    """What answered a request."""

    model: str
    outcome: str
    entry_id: str
    request_id: str
    """The request whose answer it was; leads to the entry when the answer was not stored yet."""
    similarity: float

    @classmethod
    def of(cls, use: cache_pb2.CacheUse) -> Source:
        """Of a hit."""
        return cls(use.model, use.outcome, use.entry_id, use.answered_request_id, use.similarity)


class Feedback:
    """Uses in; reports in, which remove what was wrong; statistics out."""

    def __init__(self, records: UseRecords, answers: AnswerCache, tally: Tally, judged: Judged) -> None:
        self._records = records
        self._answers = answers
        self._tally = tally
        self._judged = judged

    async def record(self, uses: Sequence[cache_pb2.CacheUse]) -> None:
        """Count uses, and note what answered which request; while Redis is away they are lost."""
        hits: dict[tuple[str, str], str] = {}
        for use in uses:
            self._tally.use(use)
            if use.outcome in SERVED:
                HITS.labels(use.outcome).inc()
            if use.answered_request_id:
                hits[use.tenant_id, use.request_id] = orjson.dumps(Source.of(use)).decode()
        await self._flush(hits)

    async def run(self) -> None:
        """Write down what is counted between records, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush({})

    async def report(self, tenant_id: str, request_id: str, *, right: bool) -> cache_pb2.ReportHitResponse:
        """Take a report of the tenant; a wrong answer is removed at both levels before anything is learned from it.

        Raises:
            ResourceNotFound: If no such hit of the tenant is known.
            DependencyUnavailable: If a level could not be reached; the report then counts for nothing yet.
        """
        try:
            source = await self._source(tenant_id, request_id)
            if await self._records.was_reported(tenant_id, request_id):
                return cache_pb2.ReportHitResponse(repeated=True)
            removed = Forgotten() if right else await self._removed(tenant_id, source)
            evidence = self._evidence(tenant_id, source, right=right)
            disputed = disputed_at(source.entry_id, evidence) if evidence and source.entry_id and not right else ""
            first = await self._records.first_report(tenant_id, request_id, evidence=evidence, disputed=disputed)
        except Unavailable as error:
            raise _away() from error
        if first and source.outcome == "semantic":
            self._tally.add(tenant_id, source.model, "right" if right else "wrong")
            self._judged.learn(tenant_id, source.entry_id, right=right)
        return cache_pb2.ReportHitResponse(
            exact_count=removed.exact_count, semantic_count=removed.semantic_count, repeated=not first
        )

    def bound(self, tenant_id: str) -> BoundState:
        """How sure a semantic hit of the tenant must be, and why."""
        return self._judged.bound_state(tenant_id)

    async def stats(self, tenant_id: str, model: str, days: int) -> list[cache_pb2.CacheStats]:
        """What the cache did for a tenant in so many days.

        Raises:
            DependencyUnavailable: If Redis is away.
        """
        try:
            await self._records.add(self._tally.taken(), {})
            return summed(await self._records.counts(tenant_id, last_days(days)), model)
        except Unavailable as error:
            raise _away() from error

    def _evidence(self, tenant_id: str, source: Source, *, right: bool) -> str:
        """What the report is evidence of; empty for exact hits."""
        if source.outcome != "semantic":
            return ""
        return evidence_of(self._judged.certainty_served(tenant_id, source.entry_id, right=right), right=right)

    async def _source(self, tenant_id: str, request_id: str) -> Source:
        found = await self._records.source(tenant_id, request_id)
        if not found:
            raise ResourceNotFound(
                f"No answer from the cache is known for request {request_id!r}: report it sooner, by its x-request-id.",
                resource=f"requests/{request_id}",
            )
        return Source(**orjson.loads(found))

    async def _removed(self, tenant_id: str, source: Source) -> Forgotten:
        entry_id = source.entry_id or await self._answers.entry_of(tenant_id, source.model, source.request_id)
        if not entry_id:
            return Forgotten()
        removed = await self._answers.forget(Selection(tenant_id, reference=entry_id))
        if removed.away:
            raise Unavailable(" ".join(removed.away))
        return removed

    async def _flush(self, hits: dict[tuple[str, str], str]) -> None:
        counts = self._tally.taken()
        if not counts and not hits:
            return
        try:
            await self._records.add(counts, hits)
        except Unavailable:
            log.warning("uses_lost", hits=len(hits))


def _away() -> DependencyUnavailable:
    return DependencyUnavailable("The cache's records cannot be reached: retry in a moment.", retry_after_seconds=2)
