"""The embedding layer: decides where the classifier is unsure, by what a text means, and acquits the innocent.

A pattern finds an attack's words, also where they are quoted or meant otherwise. What patterns alone refuse passes
where words and meaning together are sure that it is harmless; the verdict still names the rule.

Its vectors come from the inference room. Without them the patterns and the classifier's own threshold decide, and the
verdict says so: a prompt is answered or refused with the embedding model away, a little less well.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from meshkit.dependency import Unavailable
from services.guard import classifier, metrics
from services.guard.meaning import MeaningHead
from services.guard.passages import Passage
from services.guard.verdict import FAILED, Action, Finding, RiskLevel, Verdict, merge, note

LAYER = "embedding"
RULE = "embedding.injection"
UNSURE_RULE = "embedding.unsure"
MOST_WINDOWS = 3
"""Of one prompt that are looked at, the likeliest; the classifier decides about the rest."""
LONGEST_WINDOW = 1000
"""Characters of one that are read."""
SURROUNDINGS = 250
"""Characters on either side of a pattern's match that are read with it."""

Embed = Callable[[Sequence[str], float], Awaitable[Sequence[Sequence[float]]]]
"""Vectors of texts within so many seconds; raises Unavailable."""
Words = Callable[[str], float]
"""How likely a text is an attack by its words alone."""


class Question(NamedTuple):
    """What is to be settled: a finding, the text that it is about, and what its words say."""

    found: Finding
    text: str
    words: float


class SecondLook:
    """The layer."""

    def __init__(self, head: MeaningHead, embed: Embed, words: Words, stand_in_from: float) -> None:
        """`words` is the classifier, `stand_in_from` its own threshold."""
        self._head = head
        self._embed = embed
        self._words = words
        self._stand_in_from = stand_in_from

    async def judged(self, passages: Sequence[Passage], verdict: Verdict, seconds: float) -> Verdict:
        """The verdict with every open word of the classifier and the patterns settled, within `seconds`."""
        if classifier.LAYER not in verdict.layer_seconds:
            return verdict  # refused before the classifier had its word: nothing is acquitted without it
        settled = [found for found in verdict.findings if not _is_open(found)]
        opened = [found for found in verdict.findings if _is_open(found)]
        contested = sum(found.action is Action.BLOCK for found in opened)
        if not opened or contested > MOST_WINDOWS or any(found.action > Action.MASK for found in settled):
            return verdict
        started = time.perf_counter()
        # The contested come first: unless all of them are looked at the prompt is refused whatever the others say.
        questions = list(self._questions(passages, opened))
        questions.sort(key=lambda each: (each.found.action, each.words), reverse=True)
        asked, others = questions[:MOST_WINDOWS], questions[MOST_WINDOWS:]
        settled += [self._stood_in(each) for each in others]
        try:
            settled += await self._looked_at(asked, seconds)
            outcome = "judged"
        except Unavailable:
            if contested:
                return verdict  # what patterns refuse stays refused, whoever is away
            settled += [*map(self._stood_in, asked), note(LAYER, FAILED)]
            outcome = "failed"
        metrics.ESCALATIONS.labels(LAYER, "contested" if contested else "unsure", outcome).inc()
        times = {**verdict.layer_seconds, LAYER: time.perf_counter() - started}
        return merge(settled, times).at_least(verdict.data_class)

    def _questions(self, passages: Sequence[Passage], opened: Iterable[Finding]) -> Iterator[Question]:
        texts = {passage.message_index: passage.text for passage in passages}
        for found in opened:
            text = texts[found.message_index]
            if found.action is Action.BLOCK:
                window = text[max(0, found.start - SURROUNDINGS) : found.end + SURROUNDINGS][:LONGEST_WINDOW]
                yield Question(found, window, self._words(window))
            else:
                yield Question(found, text[found.start : found.end][:LONGEST_WINDOW], found.score)

    async def _looked_at(self, questions: Sequence[Question], seconds: float) -> list[Finding]:
        vectors = await self._embed([each.text for each in questions], seconds)
        return [found for pair in zip(questions, vectors, strict=True) for found in self._decided(*pair)]

    def _decided(self, question: Question, vector: Sequence[float]) -> Iterator[Finding]:
        """What is left of a doubt: a refusal, a smaller doubt, or nothing. A pattern may become a note."""
        found = question.found
        score = self._head.probability(np.array(vector, np.float32), question.words)
        if found.action is Action.BLOCK:
            harmless = score < self._head.acquit_below and question.words < self._stand_in_from
            yield _acquitted(found) if harmless else found
        elif score >= self._head.block_from:
            yield replace(_refusing(found), rule=RULE, layer=LAYER, score=score)
        elif score >= self._head.unsure_from:
            yield replace(found, rule=UNSURE_RULE, layer=LAYER, score=score)

    def _stood_in(self, question: Question) -> Finding:
        found = question.found
        refuses = found.action is not Action.BLOCK and question.words >= self._stand_in_from
        return _refusing(found) if refuses else found


def _is_open(found: Finding) -> bool:
    """Whether this layer has the last word on it."""
    return found.rule == classifier.UNSURE_RULE or (found.action is Action.BLOCK and not found.final)


def _acquitted(found: Finding) -> Finding:
    return replace(found, severity=RiskLevel.LOW, action=Action.ALLOW)


def _refusing(doubt: Finding) -> Finding:
    return replace(doubt, rule=classifier.RULE, severity=RiskLevel.HIGH, action=Action.BLOCK)
