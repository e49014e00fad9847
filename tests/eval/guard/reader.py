"""Reads prompts as the classifier does, each once, and fits heads to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from services.guard.classifier import ClassifierScanner, Head
from services.guard.features import Concepts, Features, features, windows
from services.guard.layers import PACKS
from services.guard.matching import compile_database
from services.guard.policy import load_policy
from services.guard.verdict import Action, Direction
from tests.eval.guard.logistic import fit
from tests.eval.guard.sets import Sample

FOLDS = 5
MOST_WINDOWS = 12
"""Of one text that are learnt from."""


class Scored(NamedTuple):
    """How likely a text is an attack, by the likeliest of its windows, and what stands there."""

    score: float
    window: str


class Reader:
    """Reads prompts as the classifier does, each once."""

    def __init__(self) -> None:
        self._patterns = load_policy(PACKS).scanners[Direction.INPUT]
        self._readable = self._patterns.readable
        self._concepts = Concepts(compile_database)
        self._seen: dict[str, list[tuple[Features, str]]] = {}

    def refused_by_patterns(self, text: str) -> bool:
        """Whether the layer before refuses a prompt."""
        return any(found.action is Action.BLOCK for found in self._patterns.scan(text))

    def scanner(self, head: Head) -> ClassifierScanner:
        """The layer with other weights."""
        return ClassifierScanner(head, self._concepts, self._readable)

    def scored(self, head: Head, text: str) -> Scored:
        """What a head thinks of a text."""
        return max((Scored(head.probability(seen), window) for seen, window in self._read(text)), default=Scored(0, ""))

    def fitted(self, samples: Sequence[Sample]) -> Head:
        """Weights for these prompts.

        Every window of an innocent text is innocent. Of an attack one is, at least: first all are taken, then the
        likeliest of each by what was learnt so far.
        """
        windows_of = [[seen for seen, _ in self._read(each.text)] for each in samples]
        head = self._fit(samples, windows_of)
        likeliest = [
            [max(each, key=head.probability)] if sample.is_attack else each
            for sample, each in zip(samples, windows_of, strict=True)
        ]
        return self._fit(samples, likeliest)

    def _fit(self, samples: Sequence[Sample], windows_of: Sequence[Sequence[Features]]) -> Head:
        rows = [
            (window, sample.is_attack, 1 / math.sqrt(len(each)))
            for sample, each in zip(samples, windows_of, strict=True)
            for window in each
        ]
        seen, attacks, shares = zip(*rows, strict=True)
        return fit(seen, attacks, shares, self._concepts.size)

    def unseen(self, known: Sequence[Sample]) -> list[Scored]:
        """What is thought of each prompt by a head that was shown no text of its situation."""
        fold_of = folds(known)
        heads = [
            self.fitted([each for each, its in zip(known, fold_of, strict=True) if its != fold])
            for fold in range(FOLDS)
        ]
        return [self.scored(heads[fold], each.text) for each, fold in zip(known, fold_of, strict=True)]

    def _read(self, text: str) -> list[tuple[Features, str]]:
        if text not in self._seen:
            self._seen[text] = [
                (features(view.folded[start:end], self._concepts), text[slice(*view.original(start, end))])
                for view in self._readable(text)
                for start, end in windows(len(view.folded))
                if view.folded
            ][:MOST_WINDOWS]
        return self._seen[text]


def folds(known: Sequence[Sample], count: int = FOLDS) -> list[int]:
    """For each prompt which part of a cross-validation it is judged in, the same for all of one situation."""
    numbers = {situation: number for number, situation in enumerate(dict.fromkeys(each.situation for each in known))}
    return [numbers[each.situation] % count for each in known]
