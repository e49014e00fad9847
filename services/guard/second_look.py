"""The embedding layer: decides where the classifier is unsure, by what a text means.

Its vectors come from the inference room. Without them the classifier's own threshold decides, and the verdict says so:
a prompt is answered or refused with the embedding model away, a little less well.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

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

Embed = Callable[[Sequence[str], float], Awaitable[Sequence[Sequence[float]]]]
"""Vectors of texts within so many seconds; raises Unavailable."""


class SecondLook:
    """The layer."""

    def __init__(self, head: MeaningHead, embed: Embed, stand_in_from: float) -> None:
        """`stand_in_from` is the classifier's own threshold."""
        self._head = head
        self._embed = embed
        self._stand_in_from = stand_in_from

    async def judged(self, passages: Sequence[Passage], verdict: Verdict, seconds: float) -> Verdict:
        """The verdict with every open word of the classifier settled, within `seconds`."""
        doubts = [found for found in verdict.findings if found.rule == classifier.UNSURE_RULE]
        if not doubts or verdict.action > Action.MASK:
            return verdict
        started = time.perf_counter()
        doubts.sort(key=lambda found: found.score, reverse=True)
        settled = [found for found in verdict.findings if found.rule != classifier.UNSURE_RULE]
        settled += [self._stood_in(found) for found in doubts[MOST_WINDOWS:]]
        try:
            settled += await self._looked_at(doubts[:MOST_WINDOWS], passages, seconds)
            outcome = "judged"
        except Unavailable:
            settled += [*map(self._stood_in, doubts[:MOST_WINDOWS]), note(LAYER, FAILED)]
            outcome = "failed"
        metrics.ESCALATIONS.labels(LAYER, "unsure", outcome).inc()
        times = {**verdict.layer_seconds, LAYER: time.perf_counter() - started}
        return merge(settled, times).at_least(verdict.data_class)

    async def _looked_at(self, doubts: Sequence[Finding], passages: Sequence[Passage], seconds: float) -> list[Finding]:
        texts = {passage.message_index: passage.text for passage in passages}
        windows = [texts[each.message_index][each.start : each.end][:LONGEST_WINDOW] for each in doubts]
        vectors = await self._embed(windows, seconds)
        return [found for pair in zip(doubts, vectors, strict=True) for found in self._decided(*pair)]

    def _decided(self, doubt: Finding, vector: Sequence[float]) -> Iterator[Finding]:
        """What is left of a doubt: a refusal, a smaller doubt, or nothing."""
        score = self._head.probability(np.array(vector, np.float32), doubt.score)
        if score >= self._head.block_from:
            yield replace(_refusing(doubt), rule=RULE, layer=LAYER, score=score)
        elif score >= self._head.unsure_from:
            yield replace(doubt, rule=UNSURE_RULE, layer=LAYER, score=score)

    def _stood_in(self, doubt: Finding) -> Finding:
        return _refusing(doubt) if doubt.score >= self._stand_in_from else doubt


def _refusing(doubt: Finding) -> Finding:
    return replace(doubt, rule=classifier.RULE, severity=RiskLevel.HIGH, action=Action.BLOCK)
