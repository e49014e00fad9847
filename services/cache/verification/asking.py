"""What kind of answer a question asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from services.cache.verification.reading import Reading, Word
from services.cache.verification.vocabulary import Lexicon, word_set

OPENERS = word_set("is are am was were do does did can could will would shall should may might must has have")
"""English words that open a yes-or-no question."""
YES_OR_NO = frozenset({"yes_or_no"})
WHAT = frozenset({"what"})
HOW = frozenset({"how"})
WHOM = frozenset({"whom"})
OBJECTS = frozenset({"whom", "кого", "кому"})
DOING = frozenset({"do", "делать", "сделать"})
POINTERS = frozenset({"it", "this", "that", "это"})
DOERS = frozenset({"i", "we", "you", "one"})
OPENING_WORDS = 6
"""An asking noun stands within so many words of the question word: "in what year", "what is the reason"."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What a question asks for, and which of its words say so."""

    kinds: frozenset[str]
    """when, where, how, how_many, yes_or_no ...; empty when that is open."""
    verbs_to: int
    """Before this word, verbs such as "give" only ask; from it on they are part of what is asked about."""
    nouns_to: int
    """The same for nouns such as "way"."""
    noun: int | None = None
    """The word that asks in place of a question word: "year" in "in what year"."""


def asking(words: Sequence[Word], lexicon: Lexicon) -> Asking:
    """Find what a question asks for."""
    for position, word in enumerate(words):
        kinds = lexicon.question_types.get(word.lemma)
        if kinds is not None:
            return _of_question_word(kinds, position, words, lexicon)
    if _is_yes_or_no(words):
        return Asking(YES_OR_NO, 0, 0)
    return _of_noun(words, 0, lexicon, otherwise=frozenset(), verbs_to=len(words))


def with_frames(words: Sequence[Word], asked: Asking, lexicon: Lexicon) -> tuple[Word, ...]:
    """Settle which words only ask."""
    marked = list(words)
    leading = True
    for position, word in enumerate(words):
        only_asks = (
            position == asked.noun
            or (leading and position < asked.verbs_to and word.lemma in lexicon.frame_verbs)
            or (position < asked.nouns_to and word.lemma in lexicon.frame_nouns)
            or _is_measure(words, position, lexicon)
            or _points_back(words, position)
        )
        if only_asks:
            marked[position] = replace(word, is_frame=True)
        leading = leading and not marked[position].is_content
    return tuple(marked)


def asks_differ(left: Reading, right: Reading) -> bool:
    """Whether the two ask for different kinds of answers."""
    if left.asks and right.asks and left.asks.isdisjoint(right.asks):
        return True
    mine, yours = left.asking_noun, right.asking_noun
    return bool(mine) and bool(yours) and mine != yours and not left.lexicon.are_synonyms(mine, yours)


def _of_question_word(kinds: frozenset[str], position: int, words: Sequence[Word], lexicon: Lexicon) -> Asking:
    """Kinds of the first question word, which what stands beside it may change."""
    following = words[position + 1] if position + 1 < len(words) else None
    if kinds == WHAT:
        return _of_what(position, words, lexicon)
    if _asks_whom(words, position):
        return Asking(WHOM, verbs_to=position, nouns_to=position)
    if kinds == HOW and following and following.lemma in lexicon.measures:
        return Asking(lexicon.measures[following.lemma], verbs_to=position, nouns_to=position)
    if "how_many" in kinds and following and following.text == "времени":
        return Asking(frozenset({"how_long"}), verbs_to=position, nouns_to=position + 2)
    if "how_many" in kinds and position and words[position - 1].text == "во":
        return Asking(frozenset({"when"}), verbs_to=position, nouns_to=position)
    return Asking(kinds, verbs_to=position, nouns_to=position)


def _asks_whom(words: Sequence[Word], position: int) -> bool:
    """Whether "who" is not the one who acts: "who does Mary like", "кого любит Маша"; but "by whom" is."""
    word, around = words[position], words[max(0, position - 1) : position + 2]
    if word.text in OBJECTS:
        return around[0].text != "by"
    return word.text == "who" and around[-1].text in {"do", "does", "did"}


def _of_what(position: int, words: Sequence[Word], lexicon: Lexicon) -> Asking:
    """Tell "what time", which asks when, and "what can I do", which asks how, from plain "what"."""
    for before, word in pairwise(words[position : position + OPENING_WORDS]):
        if word.text in DOING and (before.text in DOERS or word.text != "do"):
            return Asking(HOW, verbs_to=position, nouns_to=len(words))
    return _of_noun(words, position + 1, lexicon, otherwise=WHAT, verbs_to=position)


def _of_noun(
    words: Sequence[Word], start: int, lexicon: Lexicon, *, otherwise: frozenset[str], verbs_to: int
) -> Asking:
    for position in range(start, min(start + OPENING_WORDS, len(words))):
        kinds = lexicon.asking_nouns.get(words[position].lemma)
        if kinds:
            return Asking(kinds, verbs_to, len(words), noun=position)
    return Asking(otherwise, verbs_to, len(words))


def _is_measure(words: Sequence[Word], position: int, lexicon: Lexicon) -> bool:
    """Whether the word belongs to the question word: "long" in "how long", but not "tall", which says what of."""
    if not position or "how" not in lexicon.question_types.get(words[position - 1].lemma, ()):
        return False
    return bool(lexicon.measures.get(words[position].lemma, frozenset()) - WHAT)


def _points_back(words: Sequence[Word], position: int) -> bool:
    """Whether the word is the "do" of "how do I do that", which stands for what was said before."""
    beside = {word.text for word in words[max(0, position - 1) : position + 2]}
    return words[position].text in DOING and not beside.isdisjoint(POINTERS)


def _is_yes_or_no(words: Sequence[Word]) -> bool:
    if any(word.text == "ли" for word in words):
        return True
    asks_us = len(words) > 1 and words[1].text == "you"
    return bool(words) and words[0].text in OPENERS and not asks_us
