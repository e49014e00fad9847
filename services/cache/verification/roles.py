"""Who does what to whom, from where to where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from services.cache.verification.reading import BARE, Reading, Word
from services.cache.verification.vocabulary import Lexicon, word_set

DETERMINERS = word_set(
    "a an the my your our his her its their this that these those all any some мой твой ваш наш свой этот тот весь"
)


def with_roles(words: Sequence[Word], lexicon: Lexicon) -> tuple[Word, ...]:
    """Give each word the role that the preposition before its phrase makes of it."""
    role = BARE
    begun = False
    given: list[Word] = []
    for word in words:
        if word.text in lexicon.prepositions:
            role, begun = lexicon.prepositions[word.text], False
        elif word.is_function and (begun or word.lemma not in DETERMINERS):
            role = BARE
        given.append(word if word.is_function or role == word.role else replace(word, role=role))
        begun = begun or not word.is_function
        if word.cases:
            role = BARE  # a Russian phrase ends with its noun
    return tuple(given)


def roles_swapped(left: Reading, right: Reading) -> bool:
    """Whether two things that both questions name have changed places."""
    pairs = [(mine, yours) for mine, yours in _shared(left, right) if not mine.is_frame]
    return any(
        _preposition_moved(one, other) or _preposition_moved(other, one) or _cases_swapped(one, other)
        for one, other in combinations(pairs, 2)
    ) or _order_swapped(left, right)


Pair = tuple[Word, Word]
"""The same word here and there."""


def _shared(left: Reading, right: Reading) -> list[Pair]:
    """Words that stand once in each."""
    mine, yours = _single(left), _single(right)
    return [(mine[lemma], yours[lemma]) for lemma in mine if lemma in yours]


def _single(reading: Reading) -> dict[str, Word]:
    found: dict[str, Word] = {}
    repeated: set[str] = set()
    for word in reading.words:
        if word.is_function:
            continue
        (repeated.add if word.lemma in found else lambda _: None)(word.lemma)
        found[word.lemma] = word
    return {lemma: word for lemma, word in found.items() if lemma not in repeated}


def _preposition_moved(one: Pair, other: Pair) -> bool:
    """Here "to" stands with one, there with the other."""
    role = one[0].role
    return role != BARE and role == other[1].role and one[1].role != role and other[0].role != role


def _cases_swapped(one: Pair, other: Pair) -> bool:
    """One stands here in a case in which the other stands there, and the other way round."""
    if any(word.role != BARE or not word.cases for word in (*one, *other)):
        return False
    crossed = one[0].cases & other[1].cases and one[1].cases & other[0].cases
    kept = one[0].cases & one[1].cases and other[0].cases & other[1].cases
    return bool(crossed) and not kept


def _order_swapped(left: Reading, right: Reading) -> bool:
    """The same words in the same order, but for two with something between them that changed places."""
    mine, yours = left.content, right.content
    if len(mine) != len(yours) or _is_symmetric(left) or _is_symmetric(right):
        return False
    apart = [n for n in range(len(mine)) if mine[n].lemma != yours[n].lemma]
    if len(apart) != 2:
        return False
    first, second = apart
    crossed = mine[first].lemma == yours[second].lemma and mine[second].lemma == yours[first].lemma
    told_apart = _told_apart(mine[first], mine[second]) or _told_apart(yours[first], yours[second])
    return crossed and not told_apart and (second - first > 1 or _could_act(mine[first], mine[second]))


def _could_act(one: Word, other: Word) -> bool:
    """Whether two neighbours, unlike a noun and its adjective, may be the one who acts and the one acted upon."""
    subject_or_object = {"nomn", "accs"} <= one.cases & other.cases
    return subject_or_object or (one.is_name and other.is_name)


def _told_apart(one: Word, other: Word) -> bool:
    """Whether prepositions or cases say who is who, so that the order says nothing."""
    if one.role != other.role:
        return True
    return bool(one.cases) and bool(other.cases) and one.cases.isdisjoint(other.cases)


def _is_symmetric(reading: Reading) -> bool:
    return any(word.lemma in reading.lexicon.symmetric for word in reading.words)
