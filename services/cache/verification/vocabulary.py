"""Word lists of a language: closed classes, and general antonyms and synonyms."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

Lemma = Callable[[str], str]
Sets = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What the checks know of a language; its words are lemmas as the language's reader makes them."""

    function_words: frozenset[str]
    """Carry no content: articles, pronouns, auxiliaries, prepositions."""
    frame_verbs: frozenset[str]
    """Ask for an answer without saying about what, when they come first: "tell"."""
    frame_nouns: frozenset[str]
    """The same for nouns, wherever they stand: "way", "number"."""
    class_nouns: frozenset[str]
    """Beside a name or a narrower noun they add nothing: "the river" in "the river Nile"."""
    negations: frozenset[str]
    """As written, not lemmas."""
    relations: Mapping[str, int]
    """Words that place things before, after, without, against; each with the number of its meaning."""
    question_types: Sets
    """Question words, and what kind of answer they ask for."""
    measures: Sets
    """Words that make "how" ask for a measure: "long", "often"."""
    asking_nouns: Sets
    """Nouns that ask what a question word would: "reason" asks why."""
    modality: Sets
    """Words that say what may or must be."""
    prepositions: Mapping[str, str]
    """The role that a preposition, as written, gives to what follows."""
    symmetric: frozenset[str]
    """Words that make the order of two things mean nothing: "and", "difference"."""
    numbers: Mapping[str, float]
    """As written."""
    units: Mapping[str, str]
    antonyms: Sets
    synonyms: Sets
    aims: Mapping[str, re.Pattern[str]]
    """What phrases of a question show it to be after."""

    def are_opposed(self, left: str, right: str) -> bool:
        """Whether the two, or synonyms of them, say the opposite."""
        mine, yours = ({word, *self.synonyms.get(word, ())} for word in (left, right))
        return left != right and any(not yours.isdisjoint(self.antonyms.get(word, ())) for word in mine)

    def are_synonyms(self, left: str, right: str) -> bool:
        """Whether the two say much the same."""
        return right in self.synonyms.get(left, frozenset())

    def is_one_unit(self, left: str, right: str) -> bool:
        """Whether the two name one unit of measure: "%" and "percent"."""
        return left in self.units and self.units[left] == self.units.get(right)


def word_set(line: str) -> frozenset[str]:
    """The words of a line."""
    return frozenset(line.split())


def load_table(language: str) -> dict[str, Any]:
    """Read the word lists of "en" or "ru" as written."""
    return tomllib.loads((files(__package__) / "lexicon" / f"{language}.toml").read_text(encoding="utf-8"))


def lexicon(table: Mapping[str, Any], lemma: Lemma) -> Lexicon:
    """Bring the word lists into the form in which the checks meet words."""
    return Lexicon(
        function_words=_words(table["function_words"], lemma),
        frame_verbs=_words(table["frame_verbs"], lemma),
        frame_nouns=_words(table["frame_nouns"], lemma),
        class_nouns=_words(table["class_nouns"], lemma),
        negations=word_set(table["negations"]),
        relations={lemma(word): n for n, line in enumerate(table["relations"]) for word in line.split()},
        question_types=_inverted(table["question_types"], lemma),
        measures=_inverted(table["measures"], lemma),
        asking_nouns=_inverted(table["asking_nouns"], lemma),
        modality=_inverted(table["modality"], lemma),
        prepositions={word: role for role, line in table["prepositions"].items() for word in line.split()},
        symmetric=_words(table["symmetric"]["words"], lemma),
        numbers=table["numbers"],
        units={lemma(word): unit for unit, line in table["units"].items() for word in line.split()},
        antonyms=_antonyms(table["lists"]["antonyms"], lemma),
        synonyms=_synonyms(table["lists"]["synonyms"], lemma),
        aims={aim: re.compile(phrases) for aim, phrases in table["aims"].items()},
    )


def _words(line: str, lemma: Lemma) -> frozenset[str]:
    return frozenset(lemma(word) for word in line.split())


def _inverted(table: Mapping[str, str], lemma: Lemma) -> Sets:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for kind, line in table.items():
        for word in line.split():
            found[lemma(word)].add(kind)
    return _frozen(found)


def _antonyms(lines: Iterable[str], lemma: Lemma) -> Sets:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for line in lines:
        left, right = ([lemma(word) for word in side.split()] for side in line.split("/"))
        for word in left:
            found[word].update(right)
        for word in right:
            found[word].update(left)
    return _frozen(found)


def _synonyms(lines: Iterable[str], lemma: Lemma) -> Sets:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for line in lines:
        group = {lemma(word) for word in line.split()}
        for word in group:
            found[word] |= group - {word}
    return _frozen(found)


def _frozen(sets: Mapping[str, set[str]]) -> Sets:
    return {word: frozenset(members) for word, members in sets.items()}
