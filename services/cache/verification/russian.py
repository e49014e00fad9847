"""Russian words: lemmas, cases and kinds of names from the OpenCorpora dictionary."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pymorphy3  # type: ignore[import-untyped]  # ships no types

from services.cache.verification.vocabulary import Lexicon, lexicon, load_table, word_set

UNLIKELY = 0.05
"""Readings of a word less probable than this are ignored."""
DERIVED = (
    *("ирование", "ировать", "ование", "овать", "ывание", "ивание", "ывать", "ивать", "евать", "ение", "ание", "яние"),
    *(
        "ытие",
        "итие",
        "етие",
        "утие",
        "атие",
        "ятие",
        "ейский",
        "ческий",
        "ность",
        "овый",
        "евый",
        "ский",
        "ация",
        "иция",
        "ция",
        "ить",
        "ать",
        "ять",
        "еть",
        "ыть",
        "уть",
    ),
    *("ный", "ной", "ний", "ость", "ка", "ия", "ие", "ый", "ий", "ой", "ть", "о", "а", "я", "ь", "й"),
)
"""Endings that turn a word into another part of speech."""
PERFECTIVE = ("с", "по", "на", "про", "о", "ис")
"""Prefixes that often change a verb's aspect and nothing else."""
SHORTEST_ROOT = 4
PAST_BEING = word_set("был была было были")
SUPERLATIVES = word_set("самый самая самое самые самого самой самых больше меньше лучше хуже лучший худший")
TENSES = {"past": "past", "pres": "present", "futr": "future"}
PARTS = {"NOUN": "noun", "INFN": "verb", "VERB": "verb", "PRTF": "verb", "PRTS": "verb", "GRND": "verb"}
NAMES = frozenset({"Name", "Surn", "Patr", "Geox", "Orgn", "Trad"})


class Russian:
    """Reads Russian words. Loading takes 20 MB and 0.15 s."""

    def __init__(self) -> None:
        self._morphology = pymorphy3.MorphAnalyzer()
        self._parses = lru_cache(maxsize=4096)(self._parse)
        table = load_table("ru")
        self._irregular = {form: base for base, forms in table["irregular"].items() for form in forms.split()}
        self.lexicon: Lexicon = lexicon(table, self.lemma)

    def lemma(self, word: str) -> str:
        """The likeliest base form."""
        return self.lemmas(word)[0]

    def lemmas(self, word: str) -> tuple[str, ...]:
        """All base forms the word may have, the likeliest first."""
        if word in self._irregular:
            return (self._irregular[word],)
        return tuple(dict.fromkeys(self._base(parse) for parse in self._parses(word)))

    def cases(self, word: str) -> frozenset[str]:
        """Cases the form may stand in; empty for what is not declined."""
        return frozenset(str(parse.tag.case) for parse in self._parses(word) if parse.tag.case)

    def part(self, word: str) -> str:
        """What the likeliest reading is: "noun", "verb", or "" for all else."""
        return PARTS.get(str(self._parses(word)[0].tag.POS), "")

    def bare(self, lemma: str) -> str:
        """The imperfective verb in a perfective one: "варить" in "сварить"; empty when there is none."""
        if "perf" not in self._parses(lemma)[0].tag:
            return ""
        for prefix in PERFECTIVE:
            bare = lemma.removeprefix(prefix)
            if bare != lemma and self._is_imperfective(bare):
                return bare
        return ""

    def _is_imperfective(self, word: str) -> bool:
        tags = [parse.tag for parse in self._parses(word) if parse.is_known]
        return any(tag.POS == "INFN" and tag.aspect == "impf" for tag in tags)

    def is_name(self, word: str) -> bool:
        """Whether the likeliest reading is the name of a person, a place or an organisation."""
        return any(name in self._parses(word)[0].tag for name in NAMES)

    def is_past(self, word: str) -> bool:
        """Whether the form speaks of the past."""
        return "past" in self._parses(word)[0].tag

    def verb(self, word: str) -> tuple[str, str] | None:
        """Tense, and person with number, of a finite verb; None for all else."""
        tag = self._parses(word)[0].tag
        if tag.POS != "VERB" or tag.mood == "impr":
            return None
        return TENSES.get(str(tag.tense), ""), f"{str(tag.person)[0]}{tag.number}" if tag.person else ""

    def is_past_being(self, word: str) -> bool:
        """Whether the form is one of "был"."""
        return word in PAST_BEING

    def is_superlative(self, word: str) -> bool:
        """Whether the form asks for more or the most of something; Russian says both alike."""
        tag = self._parses(word)[0].tag
        return word in SUPERLATIVES or "Supr" in tag or tag.POS == "COMP"

    def root(self, lemma: str) -> str:
        """What related words share: "подключить" and "подключение"."""
        bare = lemma.removesuffix("ся").removesuffix("сь")
        for ending in DERIVED:
            if bare.endswith(ending) and len(bare) - len(ending) >= SHORTEST_ROOT:
                return bare[: -len(ending)]
        return bare

    def _base(self, parse: Any) -> str:
        base = str(parse.normal_form).replace("ё", "е")
        return str(self._irregular.get(base, base))

    def _parse(self, word: str) -> tuple[Any, ...]:
        parses = self._morphology.parse(word)
        return tuple(parse for parse in parses if parse.score >= UNLIKELY) or (parses[0],)
