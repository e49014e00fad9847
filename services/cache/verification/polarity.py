"""Whether a question is turned round: negated, opposite, another relation, another time or person."""

from __future__ import annotations

from collections.abc import Sequence

from services.cache.verification.reading import Reading, Word
from services.cache.verification.vocabulary import Lexicon, word_set

NEGATING_PREFIXES = {
    "english": ("un", "in", "im", "il", "ir", "dis", "non", "de", "anti", "mis"),
    "russian": ("не", "без", "бес", "анти", "де", "дис"),
}
PARTICLES, PARTICLE_REACH = word_set("on off in out up down over under"), 2
SECOND = 1
PERSONS = (
    word_set("i me my mine we us our мой наш я мы"),
    word_set("your yours твой ваш"),
    word_set("he him his"),
    word_set("she her hers"),
)
PERSON_OF = {form: person for person, forms in enumerate(PERSONS) for form in forms}


def denied(words: Sequence[Word], lexicon: Lexicon) -> tuple[str, ...]:
    """For each negation, the lemma of what it denies."""
    return tuple(
        next((later.lemma for later in words[position + 1 :] if later.is_content), "")
        for position, word in enumerate(words)
        if word.text in lexicon.negations
    )


def negations_differ(left: Reading, right: Reading) -> bool:
    """Whether one denies what the other does not."""
    if bool(left.denied) != bool(right.denied):
        return True
    return bool(left.denied) and not set(left.denied) & set(right.denied) and _all_shared(left, right)


def opposites_meet(left: Reading, right: Reading) -> bool:
    """Whether a word of one is the opposite of a word of the other that the first does not use."""
    mine = [word for word in left.words if right.lemmas.isdisjoint(word.lemmas)]
    yours = [word for word in right.words if left.lemmas.isdisjoint(word.lemmas)]
    return _antonyms_meet(left, right, mine, yours) or _negated(mine, yours, left) or _negated(yours, mine, left)


def modality_differs(left: Reading, right: Reading) -> bool:
    """Whether one asks what may be and the other what must be."""
    mine, yours = _modality(left), _modality(right)
    return bool(mine) and bool(yours) and mine.isdisjoint(yours)


def times_differ(left: Reading, right: Reading) -> bool:
    """Whether one asks what was and the other what is."""
    return (left.past_being and not right.past) or (right.past_being and not left.past)


def persons_differ(left: Reading, right: Reading) -> bool:
    """Whether mine became yours, or his became hers."""
    mine, yours = left.pronouns, right.pronouns
    if mine and yours and set(mine).isdisjoint(yours):
        return True
    # Third persons have no other name here, so their order says who is who.
    return [person for person in mine if person > SECOND] != [person for person in yours if person > SECOND]


def degrees_differ(left: Reading, right: Reading) -> bool:
    """Whether one asks for the most of something and the other does not."""
    return left.superlative != right.superlative


def _all_shared(left: Reading, right: Reading) -> bool:
    """Whether what each denies also stands in the other, so that the negation moved from one to the other."""
    return set(left.denied) <= right.lemmas and set(right.denied) <= left.lemmas


def relations(reading: Reading) -> frozenset[int]:
    """Numbers of the relations it speaks of."""
    words = [word.lemma for word in reading.words]
    # "from nine to five" is an interval, not a "before".
    starts = frozenset({"от", "с"})
    counted = (word for n, word in enumerate(words) if not (word == "до" and starts & set(words[:n])))
    return frozenset(reading.lexicon.relations[word] for word in counted if word in reading.lexicon.relations)


def _antonyms_meet(left: Reading, right: Reading, mine: Sequence[Word], yours: Sequence[Word]) -> bool:
    theirs = {lemma: word for word in yours for lemma in word.lemmas}
    opposites = (
        left.lexicon.antonyms.get(lemma, frozenset()) & theirs.keys() for word in mine for lemma in word.lemmas
    )
    words = [word for word in mine for _ in word.lemmas]
    met = ((one, theirs[lemma]) for one, lemmas in zip(words, opposites, strict=True) for lemma in lemmas)
    return any(_turn_the_same(left, one, right, other) for one, other in met)


def _turn_the_same(left: Reading, one: Word, right: Reading, other: Word) -> bool:
    """Whether two opposite words say the opposite of one thing: "log in" and "log out", but not "find out" and "in"."""
    if one.text not in PARTICLES or other.text not in PARTICLES:
        return True
    return not _before(left, one).isdisjoint(_before(right, other))


def _before(reading: Reading, particle: Word) -> frozenset[str]:
    """What it may belong to: the last words of content before it."""
    content = [word.lemma for word in reading.words[: reading.words.index(particle)] if word.is_content]
    return frozenset(content[-PARTICLE_REACH:])


def _negated(mine: Sequence[Word], yours: Sequence[Word], reading: Reading) -> bool:
    """Whether a word of theirs is one of ours with a prefix that denies it."""
    prefixes = NEGATING_PREFIXES.get(reading.language, ())
    denied = [word.lemma for word in yours if word.lemma.startswith(prefixes)]
    return any(prefix + word.lemma in denied for word in mine if denied and len(word.lemma) > 2 for prefix in prefixes)


def _modality(reading: Reading) -> frozenset[str]:
    if "how" in reading.asks:
        return frozenset()
    kinds = [reading.lexicon.modality.get(word.lemma, frozenset()) for word in reading.words]
    return frozenset().union(*kinds)


def pronouns(words: Sequence[Word]) -> tuple[int, ...]:
    """The person of each pronoun, in order."""
    forms = (PERSON_OF.get(word.text, PERSON_OF.get(word.lemma)) for word in words)
    return tuple(person for person in forms if person is not None)
