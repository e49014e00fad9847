"""The semantic level: the same question in other words."""

from __future__ import annotations

import asyncio
import math
import unicodedata
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain, dropwhile, filterfalse, islice, repeat
from typing import TYPE_CHECKING, TypeAlias

from services.cache.keys import Question
from services.cache.metrics import ACCURATE_LOOKUPS, CERTAINTY, VETOES
from services.cache.vectorstores.port import Entry, Glance, Match, Near, Plausible, Selection, VectorStore
from services.cache.verification.alignment import TokenVectors
from services.cache.verification.courtesy import without_courtesy
from services.cache.verification.verifier import Candidate, Phrased

if TYPE_CHECKING:
    from services.cache.embedding import Embedder
    from services.cache.errorbound import BoundState, ErrorBound
    from services.cache.scoring import Scorer
    from services.cache.verification.verifier import Verifier
    from wordvectors import WordVectors

Usable: TypeAlias = Callable[[Match], bool]
"""Says whether the answer of a match may be given to who asks now."""
Vetoed: TypeAlias = Callable[[str, str, str], None]
"""Is told the tenant, model and check of each refusal by the verifier."""

SKETCHES_PER_CANDIDATE = 4
"""Words alone order many entries badly: so many are compared by accurate vectors for each candidate that is judged."""
MATCHES_PER_CANDIDATE = 2
"""Of those so many are fetched; the checks refuse some."""
MOST_SCORED = 2
"""Candidates of a lookup that the cross-encoder reads, 16 ms of CPU each."""
LIKELY_SIMILARITY = 0.7
"""Of sketches: from here on the nearest candidate is read while the question is embedded, which saves the 16 ms."""
MOST_SERVED = 10_000
"""Entries whose use is noted between two sweeps, and whose certainty is remembered for reports."""


@dataclass(frozen=True, slots=True)
class SemanticLimits:
    """What may be a semantic hit."""

    plausible_similarity: float
    """Of sketches."""
    similarity_threshold: float
    """Of accurate vectors."""
    candidates: int
    longest_question_characters: int
    most_entries: int
    """Of all tenants together."""
    tenant_share: int
    """Where there are more, those of tenants that have more than so many go first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer written down, and what is known of it."""

    entry: bytes
    reference: str
    """What it is called at both levels."""
    subject: str
    sealed_by: str
    """The key that the subject is hidden with."""
    saves: float
    """What each use saves, in micro-units of money; at least 1."""


class SemanticCache:
    """Finds a verified answer to the same question in other words, within one tenant and one context.

    A lookup goes from cheap to dear: sketches of the words find what is plausible, and unless checks refuse all of it
    the accurate model says what is nearest; of that forest and cross-encoder judge what the checks leave.
    """

    def __init__(
        self,
        words: WordVectors,
        embedder: Embedder,
        scorer: Scorer,
        store: VectorStore,
        verifier: Verifier,
        bound: ErrorBound,
        limits: SemanticLimits,
        clock: Callable[[], float],
        vetoed: Vetoed,
    ) -> None:
        self._words = words
        self._embedder = embedder
        self._scorer = scorer
        self._store = store
        self._verifier = verifier
        self._bound = bound
        self._limits = limits
        self._clock = clock
        self._vetoed = vetoed
        self._worths: dict[str, float] = {}
        self._certainties: OrderedDict[tuple[str, str], float] = OrderedDict()

    def takes(self, question: Question | None) -> bool:
        """Whether the level handles the question at all."""
        return question is not None and len(question.text) <= self._limits.longest_question_characters

    async def find(self, tenant_id: str, question: Question, usable: Usable) -> Match | None:
        """The entry that most surely asks the same, of those whose answer is usable; None on a miss.

        Raises:
            Unavailable: If the embeddings or the store are away.
        """
        plausible = await self._plausible(tenant_id, question)
        if not plausible:
            return None
        ACCURATE_LOOKUPS.inc()
        asked, _ = await asyncio.gather(
            self._embedder.embedded(question.bare),
            self._scorer.log_odds(question.bare, [without_courtesy(each.question) for each in self._likely(plausible)]),
        )
        if not asked.tokens:
            return None
        near = Near(
            vector=asked.vector.tolist(),
            tenant_id=tenant_id,
            context=question.context,
            now=self._clock(),
            at_least=self._limits.similarity_threshold,
            limit=self._limits.candidates * MATCHES_PER_CANDIDATE,
            among=[candidate.entry_id for candidate in plausible],
        )
        found = await self._store.nearest(near)
        allowed = filterfalse(partial(self._refused, tenant_id, question), found)
        phrased = Phrased(question.text, TokenVectors.unpacked(asked.tokens))
        estimated = self._estimated(phrased, list(islice(allowed, self._limits.candidates)), plausible)
        return self._surest(tenant_id, question, await self._judged(question, estimated), usable)

    async def _plausible(self, tenant_id: str, question: Question) -> list[Plausible]:
        """Entries whose words are near, less those before the first that no check refuses."""
        glance = Glance(
            sketch=self._words.embed(question.bare).tolist(),
            tenant_id=tenant_id,
            context=question.context,
            now=self._clock(),
            at_least=self._limits.plausible_similarity,
            limit=self._limits.candidates * SKETCHES_PER_CANDIDATE,
        )
        found = await self._store.plausible(glance)
        if not found:
            return []
        await self._verifier.load()
        return list(dropwhile(partial(self._refused, tenant_id, question), found))

    def _refused(self, tenant_id: str, question: Question, stored: Plausible | Match) -> bool:
        refusal = self._verifier.refusal(question.text, stored.question)
        if refusal:
            self._note_veto(tenant_id, question, refusal)
        return refusal is not None

    def _note_veto(self, tenant_id: str, question: Question, check: str) -> None:
        VETOES.labels(check).inc()
        self._vetoed(tenant_id, question.model, check)

    def _likely(self, plausible: Sequence[Plausible]) -> Sequence[Plausible]:
        """What the cross-encoder may as well read while the question is embedded: most likely it will have to."""
        return [each for each in plausible[:1] if each.similarity >= LIKELY_SIMILARITY]

    def _estimated(
        self, asked: Phrased, found: Sequence[Match], plausible: Sequence[Plausible]
    ) -> list[tuple[float, Match]]:
        """How likely it is of each match that it asks the same, the likeliest first."""
        outlines = {candidate.entry_id: candidate.similarity for candidate in plausible}
        candidates = [
            Candidate(
                Phrased(match.question, TokenVectors.unpacked(match.tokens)),
                similarity=match.similarity,
                outline=outlines[match.entry_id],
            )
            for match in found
        ]
        estimates = self._verifier.estimates(asked, candidates)
        return sorted(zip(estimates, found, strict=True), key=lambda pair: -pair[0])

    async def _judged(
        self, question: Question, estimated: Sequence[tuple[float, Match]]
    ) -> Iterable[tuple[float, Match]]:
        """How sure it is of each match that it asks the same; of most without a look by the cross-encoder."""
        weighing = self._verifier.weighing
        read = [match for estimate, match in estimated[:MOST_SCORED] if estimate >= weighing.asked_from]
        log_odds = await self._scorer.log_odds(question.bare, [without_courtesy(match.question) for match in read])
        scores = chain(log_odds, repeat(-math.inf))
        return [
            (weighing.certainty(estimate, score), match)
            for (estimate, match), score in zip(estimated, scores, strict=False)
        ]

    def _surest(
        self, tenant_id: str, question: Question, judged: Iterable[tuple[float, Match]], usable: Usable
    ) -> Match | None:
        """The usable match that most surely asks the same, if that is sure enough for the tenant."""
        for certainty, match in sorted(judged, key=lambda pair: -pair[0]):
            CERTAINTY.observe(certainty)
            if not self._bound.admits(tenant_id, certainty, entry_id=match.reference):
                self._note_veto(tenant_id, question, "certainty")
            elif usable(match):
                self._served(tenant_id, match, certainty)
                return match
        return None

    async def remember(self, tenant_id: str, question: Question, answer: Answer, *, ttl_seconds: float) -> bool:
        """Store an answer; the same question in the same context replaces it.

        Returns whether it is stored: a question of too many tokens is none that could ever be compared.

        Raises:
            Unavailable: If the embeddings or the store are away.
        """
        embedded = await self._embedder.embedded_to_store(question.bare)
        if not embedded.tokens:
            return False
        entry = Entry(
            entry_id=_entry_id(tenant_id, question),
            vector=embedded.vector.tolist(),
            tokens=embedded.tokens,
            sketch=self._words.embed(question.bare).tolist(),
            tenant_id=tenant_id,
            model=question.model,
            context=question.context,
            question=question.text,
            answer=answer.entry,
            stored_at=self._clock(),
            expires_at=self._clock() + ttl_seconds,
            reference=answer.reference,
            subject=answer.subject,
            sealed_by=answer.sealed_by,
            worth=answer.saves,
            saves=answer.saves,
        )
        await self._store.put(entry)
        return True

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
        return await self._store.forget_cheapest(self._limits.most_entries, share=self._limits.tenant_share)

    async def forget_expired(self) -> int:
        """Remove expired answers; returns how many. Raises Unavailable."""
        return await self._store.forget_expired(self._clock())

    def certainty_served(self, tenant_id: str, entry_id: str, *, right: bool) -> float:
        """How sure a hit was that is now reported: at most as sure as the surest of the entry.

        Of a hit that this replica does not remember the worst is assumed: a wrong one was sure, a right one was not.
        """
        return self._certainties.get((tenant_id, entry_id), 0.0 if right else 1.0)

    def learn(self, tenant_id: str, entry_id: str, *, right: bool) -> None:
        """Take a report of a hit: the threshold of the tenant follows."""
        certainty = self.certainty_served(tenant_id, entry_id, right=right)
        self._bound.observe(tenant_id, certainty, right=right, entry_id=entry_id)

    def bound_state(self, tenant_id: str) -> BoundState:
        """How sure the verifier must be for the tenant, and why."""
        return self._bound.state(tenant_id)

    def _served(self, tenant_id: str, match: Match, certainty: float) -> None:
        """An answer is worth what it saves each time, times the times: those served often and dear stay longest."""
        if len(self._worths) < MOST_SERVED:
            worth, saves = self._worths.get(match.entry_id, match.worth), max(match.saves, 1.0)
            self._worths[match.entry_id] = worth + saves
        served = (tenant_id, match.reference)
        self._certainties[served] = max(certainty, self._certainties.get(served, 0.0))
        self._certainties.move_to_end(served)
        if len(self._certainties) > MOST_SERVED:
            self._certainties.popitem(last=False)


def _entry_id(tenant_id: str, question: Question) -> str:
    words = " ".join(unicodedata.normalize("NFKC", question.text).casefold().split())
    parts = "\x00".join((tenant_id, question.context, words))
    return str(uuid.UUID(bytes=blake2b(parts.encode(), digest_size=16).digest()))
