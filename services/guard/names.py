"""Finds the names of people, Russian in any grammatical form and English, in prompts.

A name alone makes a text internal, for questions about famous people are no secret; one that is introduced as a
person's ("my name is", «клиент», «ФИО») makes it sensitive. Looks at capitalised words only, and at patronymics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from services.guard.dictionaries import EnglishNames, RussianWords
from services.guard.verdict import Action, DataClass, Finding, RiskLevel

LAYER = "names"
RULE = "personal_data.name"
INTRODUCED = "personal_data.name.introduced"
CAPITALISED = r"[А-ЯЁ][а-яё]+(?:-[А-ЯЁ][а-яё]+)?"
RUN = re.compile(
    rf"\b(?:[А-ЯЁ]\.\s?){{1,2}}{CAPITALISED}"
    rf"|\b{CAPITALISED}(?:\s(?:[А-ЯЁ]\.\s?){{1,2}}|(?:\s{CAPITALISED})+)"
    r"|\b[а-яё]+\s[а-яё]+(?:ович|евич|ьич|[ио]ничн|овн|евн)(?:а|у|ом|ем|е|ы|ой)?\b(?:\s[а-яё]+)?"
    r"|\b[A-Z][a-z]+(?:\s(?:[A-Z]\.|(?:Mc|O')?[A-Z][a-z]+))+"
)
WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*\.?")
WORDS_BETWEEN, WORDS_OF_A_NAME = 1, 5
SURNAME = re.compile(r"[А-ЯЁ][а-яё]+(?:ов|ев|ёв|ин|ын|ский|цкий|енко|чук|ян|дзе|швили)(?:а|у|ой|ым|е|ая|ую|ого|ому)?")
INTRODUCERS = (
    "зовут фио имя клиент пациент сотрудни работни заемщик заёмщик граждан гр господин госпож абонент покупател "
    "получател отправител истец истц ответчик должник поручител вкладчик страховател студент ученик кандидат директор "
    "бухгалтер name mr mrs ms dr patient client customer employee borrower applicant candidate tenant dear signed "
    "sincerely regards i'm"
)
"""Beginnings of the word before a name that says whose it is."""
INTRODUCTIONS = tuple(INTRODUCERS.split())
COPULA = re.compile(r" (?:is|это|:|—) *$")
PUNCTUATION = " .,:—–-\n\t"
REACH = 32
COMMONEST = 300
"""English first names that a surname makes a person; rarer ones are often words, such as Page."""
WORDS_TOO = "WILL MARK GRACE MAY ROSE JOY SUMMER VIRGINIA CAROLINA GEORGIA JORDAN AUSTIN CHELSEA"
CACHED_WORDS = 20_000

Words = Sequence[re.Match[str]]


class NameScanner:
    """Looks for names; its dictionaries take 15 MB."""

    layer = LAYER

    def __init__(self) -> None:
        self._russian_words = RussianWords()
        self._first = EnglishNames(["male.first", "female.first"], COMMONEST, without=WORDS_TOO.split())
        self._last = EnglishNames(["all.last"])
        self._kinds = lru_cache(CACHED_WORDS)(self._looked_up)

    def scan(self, text: str, *, attacks: bool = True) -> Iterator[Finding]:  # noqa: ARG002 - names attack nobody
        """Every name in the text."""
        for run in RUN.finditer(text):
            named = self._english if run[0][0].isascii() else self._russian
            for words in _lines(text, list(WORD.finditer(text, run.start(), run.end()))):
                for name in named(words):
                    yield _finding(text, name[0].start(), name[-1].end())

    def _english(self, words: Words) -> Iterator[Words]:
        upper = [word[0].upper() for word in words]
        end = 0
        for first, word in enumerate(upper[:-1]):
            last = first + 2 if upper[first + 1].endswith(".") else first + 1
            if first >= end and word in self._first and last < len(words) and upper[last] in self._last:
                end = last + 1
                yield words[first:end]

    def _russian(self, words: Words) -> Iterator[Words]:
        """Words that stand near each other and together are a name."""
        kinds = [frozenset({"Initial"}) if word[0].endswith(".") else self._kinds(word[0]) for word in words]
        for part in _near([place for place, kind in enumerate(kinds) if kind]):
            given = [place for place in part if kinds[place] & {"Name", "Initial"}]
            family = [place for place in part if kinds[place] & {"Surn", "Patr"}]
            if any(place != other for place in given for other in family):
                yield words[part[0] : part[-1] + 1]

    def _looked_up(self, word: str) -> frozenset[str]:
        """Which of first name, patronymic and surname a Russian word may be."""
        kinds = self._russian_words.kinds(word)
        return kinds or frozenset({"Surn"} if SURNAME.fullmatch(word) else ())


def _near(places: Iterable[int]) -> Iterator[list[int]]:
    """Places of one name: nearly side by side, and no more than a name has."""
    group: list[int] = []
    for place in places:
        if group and (place - group[-1] > WORDS_BETWEEN + 1 or place - group[0] >= WORDS_OF_A_NAME):
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _lines(text: str, words: Words) -> Iterator[Words]:
    """The words of a run, by line where it is a list.

    In prose a name may be broken over two lines; there other words stand before it.
    """
    start = words[0].start()
    first, begins_line = 0, start == 0 or text[start - 1] == "\n"
    for place, (word, following) in enumerate(pairwise(words), 1):
        if "\n" in text[word.end() : following.start()]:
            if begins_line:
                yield words[first:place]
                first = place
            begins_line = True
    yield words[first:]


def _finding(text: str, start: int, end: int) -> Finding:
    before = COPULA.sub("", text[max(0, start - REACH) : start].lower()).rstrip(PUNCTUATION).rpartition(" ")[2]
    introduced = before.startswith(INTRODUCTIONS)
    rule, data_class = (INTRODUCED, DataClass.SENSITIVE) if introduced else (RULE, DataClass.INTERNAL)
    severity = RiskLevel.MEDIUM if introduced else RiskLevel.LOW
    return Finding(rule, "personal_data", severity, Action.ALLOW, data_class, start, end, LAYER)
