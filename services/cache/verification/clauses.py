"""Who acts in a question, and when."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from services.cache.verification.reading import BARE, Clause, Quote, Reading, Word
from services.cache.verification.roles import DETERMINERS
from services.cache.verification.vocabulary import word_set
from services.cache.verification.words import tokens

if TYPE_CHECKING:
    from services.cache.verification.russian import Russian

SELF = "self"
SELVES = word_set("i we you one я мы ты вы")
OTHERS = word_set("he she they it who he's он она они оно кто")
AUXILIARIES = word_set("do does did can could may might must should shall will would is are was were am have has had")
BEING = word_set("is are was were be been")
PAST = word_set("did was were had")
FUTURE = word_set("will shall ll going")
QUOTED = re.compile(r"[«“„\"]([^»”“\"]+)[»”“\"]")
NOMINATIVE = "nomn"


def english_clause(words: Sequence[Word]) -> Clause:
    """Of an English question: the one who stands after the auxiliary acts."""
    texts = [word.text for word in words]
    tenses = {tense for tense, forms in (("past", PAST), ("future", FUTURE)) if not forms.isdisjoint(texts)}
    return Clause(actor=_after_auxiliary(words), tenses=frozenset(tenses))


def russian_clause(words: Sequence[Word], russian: Russian) -> Clause:
    """Of a Russian question: cases and verbs say who acts."""
    verbs = [verb for word in words if (verb := russian.verb(word.text))]
    nouns = [word for word in words if word.cases and not word.is_frame]
    subjects = [word for word in nouns if word.role == BARE and NOMINATIVE in word.cases and "accs" not in word.cases]
    return Clause(
        actor=_nominative(words, subjects, verbs),
        subjects=frozenset(word.lemma for word in subjects),
        objects=frozenset(word.lemma for word in nouns if NOMINATIVE not in word.cases),
        tenses=frozenset(tense for tense, _ in verbs if tense),
        persons=frozenset(person for _, person in verbs if person),
    )


def quoted(text: str, lemmas: Callable[[str], tuple[str, ...]]) -> tuple[Quote, ...]:
    """What stands in quotation marks: titles are inflected there as elsewhere."""
    return tuple(tuple(lemmas(token.text) for token in tokens(quote)) for quote in QUOTED.findall(text))


def quotes_meet(left: Reading, right: Reading) -> bool:
    """Whether both quote one thing, in whatever case."""
    return any(_is_one(mine, yours) for mine in left.quoted for yours in right.quoted)


def _is_one(mine: Quote, yours: Quote) -> bool:
    return len(mine) == len(yours) and all(
        not set(one).isdisjoint(other) for one, other in zip(mine, yours, strict=True)
    )


def actors_differ(left: Reading, right: Reading) -> bool:
    """Whether somebody acts in one and somebody else in the other."""
    mine, yours = left.clause.actor, right.clause.actor
    return bool(mine) and bool(yours) and mine != yours and not left.lexicon.are_synonyms(mine, yours)


def _after_auxiliary(words: Sequence[Word]) -> str:
    if (by := _after_by(words)) is not None:
        return by
    for position, word in enumerate(words):
        if word.text in AUXILIARIES:
            actor = _actor(words[position + 1 :])
            if actor:
                return actor
    return next((SELF for word in words if word.text in {"i", "we"}), "")


def _after_by(words: Sequence[Word]) -> str | None:
    """Who acts in "was Greece conquered by Rome"; None when it is not said so."""
    texts = [word.text for word in words]
    if BEING.isdisjoint(texts) or "by" not in texts:
        return None
    at = texts.index("by")
    acted_upon = at and (texts[at - 1].endswith(("ed", "en")) or words[at - 1].lemma != texts[at - 1])
    return _actor(words[at + 1 :]) if acted_upon else None


def _actor(following: Sequence[Word]) -> str:
    for word in following:
        if word.text in SELVES:
            return SELF
        if word.text in OTHERS:
            return "" if word.text == "it" else word.text
        if word.text not in DETERMINERS and word.lemma not in DETERMINERS:
            return "" if word.is_function else word.lemma
    return ""


def _nominative(words: Sequence[Word], subjects: Sequence[Word], verbs: Sequence[tuple[str, str]]) -> str:
    texts = {word.text for word in words}
    if not texts.isdisjoint(SELVES) or any(person.startswith(("1", "2")) for _, person in verbs):
        return SELF
    if subjects:
        return subjects[0].lemma
    return "they" if any(person == "3plur" for _, person in verbs) else ""
