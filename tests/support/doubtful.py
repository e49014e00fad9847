"""Prompts about which the classifier that ships is unsure, so that the embedding layer decides."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from services.guard.classifier import ClassifierScanner, Head
from services.guard.features import Concepts
from services.guard.layers import PACKS
from services.guard.matching import compile_database
from services.guard.meaning import MeaningHead
from services.guard.patterns import PatternScanner
from services.guard.policy import load_policy
from services.guard.verdict import Direction
from tests.eval.guard.sets import Sample, load

HALF = 0.5
"""Of the way between the thresholds: near neither."""


def doubtful_prompts(*, stand_in_refuses: bool) -> Iterator[Sample]:
    """Prompts well inside the doubts that no pattern refuses, on one side of the classifier's own threshold."""
    patterns, scanner = _layers()
    (first, end), own = MeaningHead.load().doubts, Head.load().block_from
    for sample in load():
        score, _, _ = scanner.score(sample.text)
        low, high = (own, own + HALF * (end - own)) if stand_in_refuses else (first + HALF * (own - first), own)
        if low < score < high and not patterns.scan(sample.text):
            yield sample


@cache
def _layers() -> tuple[PatternScanner, ClassifierScanner]:
    patterns = load_policy(PACKS).scanners[Direction.INPUT]
    return patterns, ClassifierScanner(Head.load(), Concepts(compile_database), patterns.readable)
