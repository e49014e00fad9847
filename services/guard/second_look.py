"""The embedding layer: decides where the classifier is unsure, by what a text means, and acquits the innocent.

A pattern finds an attack's words, also where they are quoted or meant otherwise. What patterns alone refuse passes
where words and meaning together are sure that it is harmless; the verdict still names the rule.

Its vectors come from the inference room. Without them the patterns and the classifier's own threshold decide, and the
verdict says so: a prompt is answered or refused with the embedding model away, a little less well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import starmap
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
"""Of the greatest length that are looked at in one prompt, and matches in one message that may all be acquitted."""
LONGEST_WINDOW = 1000
"""Characters of one that are read."""
WINDOW_COST = 50
"""What a window costs beside its own characters, in characters: the model reads a prefix and marks with each."""
ALLOWANCE = MOST_WINDOWS * (LONGEST_WINDOW + WINDOW_COST)
"""Of one prompt: so many windows of the greatest length, or more that are shorter. The classifier decides about the
rest, and of a hundred doubts, all that a verdict names, about one at least: none that it leaves out is likelier."""
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
        opened = sorted(filter(_is_open, verdict.findings), key=_urgency, reverse=True)
        windows = list(_affordable(passages, opened))
        contested = Counter(found.message_index for found in opened if found.action is Action.BLOCK)
        # Unless all that is contested is looked at, the prompt is refused whatever the others say.
        hopeless = contested.total() > len(windows) or max(contested.values(), default=0) > MOST_WINDOWS
        if not opened or hopeless or any(found.action > Action.MASK for found in settled):
            return verdict
        started = time.perf_counter()
        settled += map(self._stood_in, opened[len(windows) :])
        try:
            settled += await self._looked_at(list(starmap(self._question, windows)), seconds)
            outcome = "judged"
        except Unavailable:
            if contested:
                return verdict  # what patterns refuse stays refused, whoever is away
            settled += [*map(self._stood_in, opened[: len(windows)]), note(LAYER, FAILED)]
            outcome = "failed"
        metrics.ESCALATIONS.labels(LAYER, "contested" if contested else "unsure", outcome).inc()
        times = {**verdict.layer_seconds, LAYER: time.perf_counter() - started}
        return merge(settled, times).at_least(verdict.data_class)

    def _question(self, found: Finding, text: str) -> Question:
        return Question(found, text, self._words(text) if found.action is Action.BLOCK else found.score)

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

    def _stood_in(self, doubt: Finding) -> Finding:
        return _refusing(doubt) if doubt.score >= self._stand_in_from else doubt


def _is_open(found: Finding) -> bool:
    """Whether this layer has the last word on it."""
    return found.rule == classifier.UNSURE_RULE or (found.action is Action.BLOCK and not found.final)


def _urgency(found: Finding) -> tuple[Action, float]:
    """What is contested comes first, then the likeliest of the classifier's doubts."""
    return found.action, found.score


def _affordable(passages: Sequence[Passage], opened: Iterable[Finding]) -> Iterator[tuple[Finding, str]]:
    """What is looked at: the first of what is open, each with the text that it is about."""
    texts = {passage.message_index: passage.text for passage in passages}
    left = ALLOWANCE
    for found in opened:
        around = SURROUNDINGS if found.action is Action.BLOCK else 0
        window = texts[found.message_index][max(0, found.start - around) : found.end + around][:LONGEST_WINDOW]
        left -= len(window) + WINDOW_COST
        if left < 0:
            return
        yield found, window


def _acquitted(found: Finding) -> Finding:
    return replace(found, severity=RiskLevel.LOW, action=Action.ALLOW)


def _refusing(doubt: Finding) -> Finding:
    return replace(doubt, rule=classifier.RULE, severity=RiskLevel.HIGH, action=Action.BLOCK)
