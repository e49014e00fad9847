"""What a pair of questions shows: every check's finding, what is left unmatched, and how similar they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.cache.verification.asking import asks_differ
from services.cache.verification.names import names_differ
from services.cache.verification.polarity import (
    degrees_differ,
    modality_differs,
    negations_differ,
    opposites_meet,
    persons,
    persons_differ,
    relations,
    times_differ,
)
from services.cache.verification.quantities import quantities_differ
from services.cache.verification.reading import BARE, Reading, Word
from services.cache.verification.roles import roles_swapped
from services.cache.verification.vocabulary import word_set
from wordvectors import WordVectors

Features: TypeAlias = Mapping[str, float]

KINDS = tuple(
    sorted(word_set("what when where who why how how_many how_long how_often how_far yes_or_no whom list whence"))
)
ACTING = word_set("i we they he she я мы они он она")
ACTED_UPON = word_set("me us them him her мне меня нас нам им их ему ей")
CHECKS: Mapping[str, Callable[[Reading, Reading], bool]] = {
    "negation": negations_differ,
    "opposite": opposites_meet,
    "name": names_differ,
    "asking": asks_differ,
    "modality": modality_differs,
    "time": times_differ,
    "person": persons_differ,
    "degree": degrees_differ,
    "role": roles_swapped,
}


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


class PairReader:
    """Measures pairs; the same whichever question comes first."""

    def __init__(self, table: WordVectors) -> None:
        self._table = table
        self._vector = lru_cache(maxsize=4096)(table.embed)
        self._weight = lru_cache(maxsize=4096)(lambda word: min(1.0, table.weight(word)))

    def features(self, left: Reading, right: Reading, *, similarity: float, outline: float) -> Features:
        """All features by name; `similarity` is the accurate cosine, `outline` that of the sketches."""
        return {
            "similarity": similarity,
            "outline": outline,
            "russian": float("russian" in (left.language, right.language)),
            **{name: float(differs(left, right)) for name, differs in CHECKS.items()},
            **self._wording(left, right),
            **_quantities(left, right),
            **_relations(left, right),
            **_asking(left, right),
            **_roles(left, right),
            **_shape(left, right),
        }

    def _wording(self, left: Reading, right: Reading) -> Features:
        mine, yours = list(self._unmatched(left, right)), list(self._unmatched(right, left))
        both = [*mine, *yours]
        losses = [sum(one.loss for one in side) for side in (mine, yours)]
        worst = [max((one.loss for one in side), default=0.0) for side in (mine, yours)]
        weights = [sum(one.weight for one in side) for side in (mine, yours)]
        said = sum(self._weight(word.text) for word in (*left.content, *right.content))
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
            "replaced": float(bool(mine) and bool(yours)),
            "replacement": self._cosine(mine, yours),
            "nearest_least": min((one.nearest for one in both), default=1.0),
            "nearest_mean": sum(one.nearest for one in both) / len(both) if both else 1.0,
            "nouns_replaced": float(_has_noun(mine) and _has_noun(yours)),
            "unmatched_verbs": sum(one.word.part == "verb" for one in both),
            "unmatched_nouns": sum(one.word.part == "noun" for one in both),
            "unmatched_names": float(any(one.word.is_name for one in both)),
            "unmatched_governed": sum(one.word.role != BARE for one in both),
            "unmatched_end": float(_ends_with(left, mine) or _ends_with(right, yours)),
        }

    def _unmatched(self, mine: Reading, yours: Reading) -> Iterator[Unmatched]:
        others = [self._vector(word.text) for word in yours.content if not word.is_number]
        for word in mine.content:
            if word.is_number or any(word.resembles(other, mine.lexicon) for other in yours.words):
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


def _quantities(left: Reading, right: Reading) -> Features:
    mine, yours = (sorted(q.value for q in reading.quantities if q.value != "1") for reading in (left, right))
    units = left.units != right.units
    return {
        "numbers": float(mine != yours),
        "numbers_both": float(mine != yours and bool(mine) and bool(yours)),
        "counted": float(
            mine == yours and len(left.quantities) == len(right.quantities) and quantities_differ(left, right)
        ),
        "units": float(units),
        "units_both": float(units and bool(left.units) and bool(right.units)),
        "operators": float(left.operators != right.operators),
    }


def _relations(left: Reading, right: Reading) -> Features:
    mine, yours = relations(left), relations(right)
    return {
        "relation": float(mine != yours),
        "relation_both": float(mine != yours and bool(mine) and bool(yours)),
        "denials": abs(len(left.denied) - len(right.denied)),
        "past": float(left.past != right.past),
    }


def _asking(left: Reading, right: Reading) -> Features:
    return {
        "asks_alike": float(not left.asks.isdisjoint(right.asks)),
        "asks_open": float(not left.asks or not right.asks),
        **{f"asks_{kind}": float((kind in left.asks) != (kind in right.asks)) for kind in KINDS},
    }


def _roles(left: Reading, right: Reading) -> Features:
    mine, yours = ({word.lemma: word for word in reading.words if not word.is_function} for reading in (left, right))
    shared = [(mine[lemma], yours[lemma]) for lemma in mine if lemma in yours]
    order = [lemma for lemma in yours if lemma in mine]
    places = [order.index(one.lemma) for one, _ in shared]
    return {
        "roles": sum(one.role != other.role and bool(one.role) and bool(other.role) for one, other in shared),
        "roles_one": sum(one.role != other.role for one, other in shared),
        "cases": sum(bool(one.cases) and bool(other.cases) and not one.cases & other.cases for one, other in shared),
        "inversions": sum(earlier > later for earlier, later in combinations(places, 2)),
        "shared": len(shared),
        "acting": float(_texts(left, ACTING) != _texts(right, ACTING)),
        "acting_both": float(_apart(_texts(left, ACTING), _texts(right, ACTING))),
        "acted_upon": float(_texts(left, ACTED_UPON) != _texts(right, ACTED_UPON)),
        "persons": float(set(persons(left)) != set(persons(right))),
    }


def _shape(left: Reading, right: Reading) -> Features:
    mine, yours = ({word.lemma for word in reading.words if word.is_function} for reading in (left, right))
    shorter, longer = sorted((len(left.words), len(right.words)))
    first, last = (bool(left.content) and bool(right.content) and _same(left, right, at) for at in (0, -1))
    return {
        "function_words": len(mine ^ yours) / max(1, len(mine | yours)),
        "lengths": shorter / max(1, longer),
        "shorter": shorter,
        "same_start": float(first),
        "same_end": float(last),
    }


def _same(left: Reading, right: Reading, at: int) -> bool:
    return left.content[at].lemma == right.content[at].lemma


def _texts(reading: Reading, wanted: frozenset[str]) -> frozenset[str]:
    return frozenset(word.text for word in reading.words) & wanted


def _apart(mine: frozenset[str], yours: frozenset[str]) -> bool:
    return bool(mine) and bool(yours) and mine.isdisjoint(yours)


def _has_noun(side: Sequence[Unmatched]) -> bool:
    return any(one.word.part == "noun" for one in side)


def _ends_with(reading: Reading, side: Sequence[Unmatched]) -> bool:
    return bool(reading.content) and any(one.word is reading.content[-1] for one in side)
