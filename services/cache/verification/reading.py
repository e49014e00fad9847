"""A question as the checks see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from services.cache.verification.vocabulary import Lexicon

BARE = ""
"""The role of a word that no preposition governs."""
Quote: TypeAlias = tuple[tuple[str, ...], ...]
"""Of each word in quotation marks the base forms it may have."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a question."""

    text: str
    lemmas: tuple[str, ...]
    """Base forms the word may have, the likeliest first."""
    root: str
    """What related words share."""
    is_function: bool = False
    """Carries no content: articles, pronouns, prepositions, auxiliaries."""
    is_frame: bool = False
    """Asks for an answer without saying about what."""
    is_name: bool = False
    is_number: bool = False
    """In digits or in words; what it says is in the quantities."""
    part: str = ""
    """"noun", "verb" or "" for others and for all English words."""
    bare: str = ""
    """The imperfective verb that a perfective one is made of by a prefix."""
    role: str = BARE
    """What the preposition before it makes of it."""
    cases: frozenset[str] = frozenset()
    """Russian cases the form may stand in."""

    @property
    def lemma(self) -> str:
        """The likeliest base form."""
        return self.lemmas[0]

    @property
    def is_content(self) -> bool:
        """Whether it says what the question is about."""
        return not (self.is_function or self.is_frame)

    def resembles(self, other: Word, lexicon: Lexicon) -> bool:
        """Whether the two are forms of one word, of one root, or synonyms."""
        if not set(self.lemmas).isdisjoint(other.lemmas):
            return True
        if self.bare in other.lemmas or other.bare in self.lemmas:
            return True
        # Two nouns of one root are two things: "банк" and "банка".
        if self.root == other.root and (self.part != "noun" or other.part != "noun"):
            return True
        if self.is_name or other.is_name:
            return False
        return lexicon.are_synonyms(self.lemma, other.lemma) or lexicon.is_one_unit(self.lemma, other.lemma)


@dataclass(frozen=True, slots=True)
class Clause:
    """Who acts, and when."""

    actor: str = ""
    """Lemma of the one who acts; "self" for I, we and you; empty when nobody is named."""
    subjects: frozenset[str] = frozenset()
    """Russian nouns that can only be what acts."""
    objects: frozenset[str] = frozenset()
    """Those that can only be what is acted upon, in whatever case."""
    tenses: frozenset[str] = frozenset()
    """Of its verbs: "past", "present", "future"."""
    persons: frozenset[str] = frozenset()
    """Of its verbs in Russian, with the number: "3plur"."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, and what it counts."""

    value: str
    counted: str
    """Unit, or lemma of the word it belongs to; empty when there is none."""


@dataclass(frozen=True)
class Reading:
    """Everything the checks ask about one question."""

    language: str
    """"russian", "english" (which stands for every language in Latin letters) or "other"."""
    lexicon: Lexicon
    words: tuple[Word, ...]
    quantities: tuple[Quantity, ...]
    operators: tuple[str, ...]
    """Signs of arithmetic and of code, in order."""
    asking_noun: str
    """Lemma of the noun that asks in place of a question word; empty when there is none."""
    asks: frozenset[str]
    """What kind of answer is wanted: when, where, how, how_many, yes_or_no ...; empty when that is open."""
    denied: tuple[str, ...]
    """For each negation the lemma of what it denies."""
    past: bool
    """Whether a verb speaks of the past."""
    past_being: bool
    """Whether a form of "was" does."""
    superlative: bool
    pronouns: tuple[int, ...] = ()
    """The person of each, in order; numbers of `polarity.PERSONS`."""
    aims: frozenset[str] = frozenset()
    """What its phrases show it to be after: "cost", "why", "may" ...; several may hold."""
    clause: Clause = Clause()
    quoted: tuple[Quote, ...] = ()
    """What stands in quotation marks."""

    @cached_property
    def content(self) -> tuple[Word, ...]:
        """The words that say what the question is about."""
        return tuple(word for word in self.words if word.is_content)

    @cached_property
    def lemmas(self) -> frozenset[str]:
        """Every base form that any word may have."""
        return frozenset(lemma for word in self.words for lemma in word.lemmas)

    @cached_property
    def units(self) -> frozenset[str]:
        """Every unit of measure or currency it speaks of."""
        return frozenset(unit for word in self.content if (unit := self.lexicon.units.get(word.lemma)))
