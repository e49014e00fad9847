"""Looks answers up, remembers and forgets them, at both levels."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from llmmesh.cache.v1 import cache_pb2
from meshkit.dependency import Unavailable
from meshkit.log import get_logger
from services.cache.admission import Limits, prompt_refusal
from services.cache.codec import Codec, EntryUnusable
from services.cache.keys import entry_id_of, exact_key, key_scope, question_of
from services.cache.metrics import UNUSABLE
from services.cache.purging import ExactSelection, Forgotten, note_of, selection_of
from services.cache.sealing import Seals
from services.cache.semantic import SemanticCache
from services.cache.vectorstores.port import Match, Selection
from services.cache.writing import AnswerWriter, Level

if TYPE_CHECKING:
    from services.cache.exact import ExactStore

Alarm: TypeAlias = Callable[[str, str, str], None]
"""Is told the tenant, model and level of an entry that was tampered with."""

log = get_logger()


LEASE_POLL_SECONDS = 0.025
"""How often to look whether an answer that is waited for has come."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a lookup came to."""

    answer: cache_pb2.CachedAnswer | None = None
    similarity: float = 0.0
    unavailable: bool = False
    lease_id: str = ""
    leased_elsewhere: bool = False
    copy_seconds: float = 0.0
    """How long the asker may give the answer again without asking."""

    @property
    def outcome(self) -> str:
        """One word for the metrics."""
        if self.unavailable:
            return "unavailable"
        return "miss" if self.answer is None else "hit"


MISS = Found()
AWAY = Found(unavailable=True)


class AnswerCache:
    """Both levels behind one door. A level that is away is a miss, and never an error, except to a purge."""

    def __init__(
        self,
        exact: ExactStore,
        semantic: SemanticCache,
        seals: Seals,
        codec: Codec,
        limits: Limits,
        *,
        alarm: Alarm,
        clock: Callable[[], float],
        copy_seconds: float = 0.0,
    ) -> None:
        self._exact = exact
        self._semantic = semantic
        self._seals = seals
        self._codec = codec
        self._alarm = alarm
        self._limits = limits
        self._clock = clock
        self._copy_seconds = copy_seconds
        self._forgetting: set[asyncio.Task[None]] = set()
        self._writing = AnswerWriter(exact, semantic, seals, codec, limits, clock=clock)

    async def find_exact(self, tenant_id: str, request: cache_pb2.LookupAnswerRequest) -> Found:
        """The answer to these very bytes; on a miss the lease to make it, where one is asked for."""
        key = exact_key(tenant_id, request.prompt, request.guard_policy_version)
        try:
            entry = await self._exact.get(key)
        except Unavailable:
            return AWAY
        found = MISS if entry is None else self._found(request, entry, tenant_id, key)
        if found.answer is not None:
            return replace(found, copy_seconds=0.0 if request.HasField("max_age") else self._copy_seconds)
        return await self._leased(tenant_id, key, request, entry or b"") if self._may_be_leased(request) else MISS

    async def find_semantic(self, tenant_id: str, request: cache_pb2.LookupAnswerRequest) -> Found:
        """The verified answer to the same question in other words."""
        question = question_of(request.prompt, request.guard_policy_version)
        if question is None or not self._semantic.takes(question):
            return MISS
        found = MISS
        spoilt: list[str] = []

        def usable(match: Match) -> bool:
            nonlocal found
            place = replace(question, text=match.question).place
            stored = self._unpacked(request, match.answer, tenant_id, place, level="semantic")
            if stored is None:
                spoilt.append(match.reference)
            elif self._is_young_enough(request, stored):
                found = Found(stored, match.similarity)
            return found.answer is not None

        try:
            await self._semantic.find(tenant_id, question, usable)
        except Unavailable:
            return AWAY
        if spoilt:
            forgetting = asyncio.create_task(self._forget_spoilt(tenant_id, spoilt))
            self._forgetting.add(forgetting)
            forgetting.add_done_callback(self._forgetting.discard)
        return found

    async def _forget_spoilt(self, tenant_id: str, references: Iterable[str]) -> None:
        """Remove what can be no answer any more: asked in other words, the next answer does not take its place."""
        with suppress(Unavailable):  # it is found again
            for reference in filter(None, references):
                await self._semantic.forget(Selection(tenant_id, reference=reference), dry_run=False)

    async def remember(self, tenant_id: str, request: cache_pb2.StoreAnswerRequest) -> list[Level]:
        """Remember an answer where it is allowed and possible, then give its lease back; returns where."""
        try:
            return await self._writing.write(tenant_id, request)
        finally:
            if request.lease_id:
                await self.release(tenant_id, request.lease_id)

    async def release(self, tenant_id: str, lease_id: str) -> None:
        """Give a lease back; while Redis is away it ends by itself."""
        entry_id, _, token = lease_id.rpartition("/")
        try:
            await self._exact.release_lease(key_scope(tenant_id) + entry_id, token)
        except Unavailable:
            log.info("lease_left_to_end", lease=lease_id)

    def _may_be_leased(self, request: cache_pb2.LookupAnswerRequest) -> bool:
        return request.HasField("lease") and not prompt_refusal(request.prompt, self._limits.within(request.limits))

    async def _leased(self, tenant_id: str, key: str, request: cache_pb2.LookupAnswerRequest, useless: bytes) -> Found:
        """Take the lease, or wait for the answer of whoever has it; when that one fails the lease may come here.

        An entry that is too old for the asker, or cannot be read, is `useless`: another is to take its place.
        """
        token, seconds = secrets.token_hex(8), request.lease.ToNanoseconds() / 1e9
        until = time.monotonic() + request.wait.ToNanoseconds() / 1e9
        while True:
            try:
                lease = await self._exact.take_lease(key, token, seconds=seconds, useless=useless)
            except Unavailable:  # a full Redis takes no lease: everybody answers on his own
                return MISS
            if lease.entry is not None:
                found = self._found(request, lease.entry, tenant_id, key)
                if found.answer is not None:
                    return found
                useless = lease.entry
                continue
            if lease.taken:
                return Found(lease_id=f"{entry_id_of(tenant_id, key)}/{token}")
            if time.monotonic() >= until:
                return Found(leased_elsewhere=True)
            await asyncio.sleep(LEASE_POLL_SECONDS)

    def _found(self, request: cache_pb2.LookupAnswerRequest, entry: bytes, tenant_id: str, place: str) -> Found:
        answer = self._unpacked(request, entry, tenant_id, place, level="exact")
        return MISS if answer is None or not self._is_young_enough(request, answer) else Found(answer)

    def _unpacked(
        self, request: cache_pb2.LookupAnswerRequest, entry: bytes, tenant_id: str, place: str, *, level: str
    ) -> cache_pb2.CachedAnswer | None:
        try:
            return self._codec.unpack(entry, tenant_id, place).answer
        except EntryUnusable as error:
            UNUSABLE.labels(level, error.flaw).inc()
            if error.flaw == "tampered":
                self._alarm(tenant_id, request.prompt.model, level)
            return None

    def _is_young_enough(self, request: cache_pb2.LookupAnswerRequest, answer: cache_pb2.CachedAnswer) -> bool:
        age_ns = self._clock() * 1e9 - answer.create_time.ToNanoseconds()
        return not request.HasField("max_age") or age_ns <= request.max_age.ToNanoseconds()

    async def purge(self, tenant_id: str, request: cache_pb2.PurgeAnswersRequest) -> Forgotten:
        """Remove what a request chooses of a tenant's answers, at both levels, or count it."""
        subject = self._seals.pseudonym(tenant_id, request.subject)
        selection = selection_of(tenant_id, request, subject, self._clock())
        forgotten = await self.forget(selection, dry_run=request.dry_run)
        if subject and not forgotten.away:
            await self._forget_unknown(selection, forgotten, dry_run=request.dry_run)
        return forgotten

    async def _forget_unknown(self, selection: Selection, forgotten: Forgotten, *, dry_run: bool) -> None:
        """Remove what was sealed by another key, or nobody says by which: whose it is cannot be told."""
        of_subject = replace(selection, sealed_by_others_than=self._seals.name)
        counted = Forgotten()
        await self._forget_semantic(of_subject, counted, dry_run=True)
        await self._forget_semantic(replace(of_subject, subject=""), forgotten, dry_run=dry_run)
        forgotten.semantic_count -= counted.semantic_count  # the selection has them too, where nothing is removed
        forgotten.away += counted.away

    async def forget(self, selection: Selection, *, dry_run: bool = False) -> Forgotten:
        """Remove a selection at both levels, or count it; returns when gateways have no copies left either.

        Answers on their way to a level meanwhile do not appear after it.
        """
        forgotten = Forgotten()
        exact = ExactSelection(selection, self._codec)
        try:
            if not dry_run:
                await self._exact.note_purge(note_of(selection), selection.stored_until)
            forgotten.exact_count = await self._exact.forget(
                exact.scope, exact.key, exact.takes if exact.needs_entries else None, dry_run=dry_run
            )
        except Unavailable:
            forgotten.away.append("exact")
        await self._forget_semantic(selection, forgotten, dry_run=dry_run)
        if not dry_run:
            await asyncio.sleep(self._copy_seconds)
        return forgotten

    async def _forget_semantic(self, selection: Selection, forgotten: Forgotten, *, dry_run: bool) -> None:
        try:
            forgotten.semantic_count += await self._semantic.forget(selection, dry_run=dry_run)
        except Unavailable:
            forgotten.away.append("semantic")

    async def entry_of(self, tenant_id: str, model: str, request_id: str) -> str:
        """The entry that a request stored; empty when there is none. Reads all of the model's, so not for every day."""
        found: list[str] = []

        def note(key: str, entry: bytes) -> bool:
            with suppress(EntryUnusable):
                if self._codec.unpack(entry, tenant_id, key).answer.request_id == request_id:
                    found.append(entry_id_of(tenant_id, key))
            return False

        await self._exact.forget(key_scope(tenant_id, model), chosen=note, dry_run=True)
        return found[0] if found else ""
