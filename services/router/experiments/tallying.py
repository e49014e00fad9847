"""Counts how the requests of experiments went, and shares the counts with the other routers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from meshkit.errors import DependencyUnavailable
from services.router.experiments.measures import Measure
from services.router.experiments.tally import SHAPE, Tally
from services.router.experiments.treatment import Treatment
from services.router.feedback import Answer
from services.router.learned.rewards import quality_of
from services.router.observing import Chat
from services.router.redis_store import RedisStore


@dataclass(slots=True)
class Tallying:
    """The tallies of the variants, by the names of their versions. Without a store they live here alone."""

    store: RedisStore | None = None
    clock: Callable[[], float] = time.time
    versions: Sequence[str] = ()
    """Those whose tallies are read from the store."""
    known: dict[str, Tally] = field(default_factory=dict)
    news: dict[str, Tally] = field(default_factory=dict)
    """What the other routers were not told yet."""

    def note(self, chat: Chat) -> None:
        """Count a chat that is over."""
        for treatment in chat.counted_as:
            self._count(chat, treatment)

    def _count(self, chat: Chat, treatment: Treatment) -> None:
        for tally in self._books(treatment.version):
            tally.since = min(tally.since, self.clock())
            if treatment.group is None:
                tally.left_out += 1
                continue
            for measure, value in measured(chat, treatment):
                tally.add(treatment.group, measure, value)

    def rate(self, answer: Answer, score: float, before: float | None) -> None:
        """Count feedback, or a changed mind."""
        if answer.trial is None:
            return
        version, group = answer.trial
        for tally in self._books(version):
            if before is None:
                tally.add(group, Measure.QUALITY, quality_of(score))
            else:
                tally.correct(group, Measure.QUALITY, quality_of(score) - quality_of(before))

    def tally(self, version: str) -> Tally:
        """What is known of a version."""
        return self.known.get(version) or Tally()

    async def beat(self) -> None:
        """Tell the store what is new and read what all routers know; while it is away, news wait."""
        if self.store is None:
            return
        with suppress(DependencyUnavailable):  # logged where it was found
            await self._exchange(self.store)

    async def _exchange(self, store: RedisStore) -> None:
        news, self.news = self.news, {}
        try:
            for version in list(news):
                if await store.add(_key(version), news[version], Tally.absorb):
                    del news[version]
        finally:
            for version, tally in news.items():
                self.news.setdefault(version, Tally()).absorb(tally)
        stored = await store.sums([_key(version) for version in self.versions], Tally)
        for version, total in zip(self.versions, stored, strict=True):
            self.known[version] = total or Tally()
            if version in self.news:
                self.known[version].absorb(self.news[version])

    def _books(self, version: str) -> list[Tally]:
        """Where something new is entered."""
        return [book.setdefault(version, Tally()) for book in (self.known, self.news)]


def measured(chat: Chat, treatment: Treatment) -> Iterator[tuple[Measure, float]]:
    """What a chat that is over tells; its quality is told later, if at all."""
    yield Measure.ABANDONED, float(chat.left)
    if not chat.left:
        yield Measure.SUCCESS, float(chat.finished)
    if chat.deployment is None:
        return
    if treatment.deployments:
        yield Measure.FALLBACK, float(chat.deployment.name not in treatment.deployments)
    yield Measure.FIRST_TOKEN_SECONDS, chat.first_token_seconds
    if chat.finished:
        yield Measure.SECONDS, chat.seconds
        yield Measure.COST_MICROS, float(chat.cost_micros)
        yield Measure.OUTPUT_TOKENS, float(chat.output_tokens)


def _key(version: str) -> str:
    return f"tally:{SHAPE}:{version}"
