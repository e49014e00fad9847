"""How the words of two questions stand for each other, and what is left unmatched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.cache.verification.reading import BARE, Reading, Word
from services.cache.verification.vocabulary import Lexicon
from wordvectors import WordVectors

Features: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A content word of one question that nothing in the other stands for."""

    word: Word
    weight: float
    """How much such a word says."""
    nearest: float
    """Cosine with the nearest content word of the other question."""

    @property
    def loss(self) -> float:
        """How much is missing in the other question."""
        return self.weight * (1 - self.nearest)


class Wording:
    """Matches words as forms of one word, as synonyms, and by the nearest of their vectors."""

    def __init__(self, table: WordVectors) -> None:
        self._vector = lru_cache(maxsize=4096)(table.embed)
        self._weight = lru_cache(maxsize=4096)(lambda word: min(1.0, table.weight(word)))

    def features(self, left: Reading, right: Reading) -> Features:
        """What is unmatched, how much that says, and how well the rest stands for each other."""
        mine, yours = list(self._unmatched(left, right)), list(self._unmatched(right, left))
        classes = _classes(left, mine), _classes(right, yours)
        if not all(classes):
            mine = [one for one in mine if one.word not in classes[0]]
            yours = [one for one in yours if one.word not in classes[1]]
        losses = [sum(one.loss for one in side) for side in (mine, yours)]
        worst = [max((one.loss for one in side), default=0.0) for side in (mine, yours)]
        weights = [sum(one.weight for one in side) for side in (mine, yours)]
        said_here, said_there = self._said(left), self._said(right)
        said = said_here + said_there
        coverages = [1 - losses[0] / (said_here or 1.0), 1 - losses[1] / (said_there or 1.0)]
        return {
            "unmatched_more": max(len(mine), len(yours)),
            "unmatched_fewer": min(len(mine), len(yours)),
            "loss_more": max(losses),
            "loss_less": min(losses),
            "worst_more": max(worst),
            "worst_less": min(worst),
            "weight_more": max(weights),
            "weight_less": min(weights),
            "share_unmatched": sum(weights) / said if said else 0.0,
            "coverage_less": min(coverages),
            "coverage_more": max(coverages),
            "synonyms": sum(_is_synonym(word, other, left) for word, other in _sides(left, right)),
            "content_fewer": min(len(left.content), len(right.content)),
            "content_more": max(len(left.content), len(right.content)),
            "classes": sum(map(len, classes)),
            "unmatched_end": float(_ends_with(left, mine) or _ends_with(right, yours)),
            **self._left_over(left, mine, yours),
        }

    def _left_over(self, reading: Reading, mine: Sequence[Unmatched], yours: Sequence[Unmatched]) -> Features:
        both = [*mine, *yours]
        return {
            "replaced": float(bool(mine) and bool(yours)),
            "replacement": self._cosine(mine, yours),
            "nearest_least": min((one.nearest for one in both), default=1.0),
            "nearest_mean": sum(one.nearest for one in both) / len(both) if both else 1.0,
            "nouns_replaced": float(_has_noun(mine) and _has_noun(yours)),
            "unmatched_verbs": sum(one.word.part == "verb" for one in both),
            "unmatched_nouns": sum(one.word.part == "noun" for one in both),
            "unmatched_names": float(any(one.word.is_name for one in both)),
            "unmatched_governed": sum(one.word.role != BARE for one in both),
            "opposed": float(_opposed(reading, mine, yours)),
            "verbs_replaced": float(_has_verb(mine) and _has_verb(yours)),
        }

    def _said(self, reading: Reading) -> float:
        return sum(self._weight(word.text) for word in reading.content)

    def _unmatched(self, mine: Reading, yours: Reading) -> Iterator[Unmatched]:
        others = [self._vector(word.text) for word in yours.content if not word.is_number]
        for word in mine.content:
            if word.is_number or _stands_in(word, yours, mine.lexicon):
                continue
            vector = self._vector(word.text)
            nearest = max((float(vector @ other) for other in others), default=0.0)
            yield Unmatched(word, self._weight(word.text), max(0.0, nearest))

    def _cosine(self, mine: Sequence[Unmatched], yours: Sequence[Unmatched]) -> float:
        """Cosine of what each has and the other has not."""
        if not mine or not yours:
            return 0.0
        one, other = self._sum(mine), self._sum(yours)
        lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
        return float(one @ other) / lengths if lengths else 0.0

    def _sum(self, side: Sequence[Unmatched]) -> NDArray[np.float32]:
        weighed = [self._vector(one.word.text) * np.float32(one.weight) for one in side]
        total: NDArray[np.float32] = np.sum(weighed, axis=0)
        return total


def _classes(reading: Reading, unmatched: Sequence[Unmatched]) -> list[Word]:
    """Unmatched words that only say of what kind a matched one is, which they stand beside."""
    missing = {one.word for one in unmatched}

    def is_class(word: Word) -> bool:
        return word in missing and not word.is_name and word.lemma in reading.lexicon.class_nouns

    runs = [(classes, list(run)) for classes, run in groupby(reading.content, is_class)]
    found: list[Word] = []
    for place, (classes, run) in enumerate(runs):
        before, after = runs[max(0, place - 1)][1][-1], runs[min(place + 1, len(runs) - 1)][1][0]
        if classes and not {before, after} <= missing:
            found.extend(run)
    return found


def _opposed(reading: Reading, mine: Sequence[Unmatched], yours: Sequence[Unmatched]) -> bool:
    return any(reading.lexicon.are_opposed(one.word.lemma, other.word.lemma) for one in mine for other in yours)


def _sides(left: Reading, right: Reading) -> Iterator[tuple[Word, Reading]]:
    yield from ((word, right) for word in left.content)
    yield from ((word, left) for word in right.content)


def _stands_in(word: Word, other: Reading, lexicon: Lexicon) -> bool:
    """Whether some word of the other question is a form of the word, of its root, or a synonym."""
    return not other.lemmas.isdisjoint(word.lemmas) or any(word.resembles(one, lexicon) for one in other.words)


def _is_synonym(word: Word, other: Reading, reading: Reading) -> bool:
    """Whether a word is found in the other question as a synonym alone."""
    return other.lemmas.isdisjoint(word.lemmas) and _stands_in(word, other, reading.lexicon)


def _has_verb(side: Sequence[Unmatched]) -> bool:
    return any(one.word.part == "verb" for one in side)


def _has_noun(side: Sequence[Unmatched]) -> bool:
    return any(one.word.part == "noun" for one in side)


def _ends_with(reading: Reading, side: Sequence[Unmatched]) -> bool:
    return bool(reading.content) and any(one.word is reading.content[-1] for one in side)
