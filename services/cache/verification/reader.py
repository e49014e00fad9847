"""Reads a question: words, their roles, quantities, negations, and what it asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

from services.cache.verification.asking import YES_OR_NO, asking, with_frames
from services.cache.verification.clauses import english_clause, quoted, russian_clause
from services.cache.verification.courtesy import without_courtesy
from services.cache.verification.english import English
from services.cache.verification.numerals import is_number
from services.cache.verification.polarity import denied, pronouns
from services.cache.verification.quantities import quantities
from services.cache.verification.reading import Reading, Word
from services.cache.verification.roles import with_roles
from services.cache.verification.russian import Russian
from services.cache.verification.vocabulary import Lexicon, word_set
from services.cache.verification.words import OPERATORS, Token, signs, tokens

WORDS_KEPT = 4096
"""Words whose dictionary entries are kept, about 1 KB each: questions of one tenant share most of them."""
OF_WHETHER = word_set("yes_or_no may must worth difference cost how_many")
"""What a question that wants a yes or a no may be after besides."""


class Reader:
    """Reads questions in Russian and English; other languages word by word, without grammar."""

    def __init__(self) -> None:
        self._word = lru_cache(maxsize=WORDS_KEPT)(self._looked_up)

    @cached_property
    def _english(self) -> English:
        return English()

    @cached_property
    def _russian(self) -> Russian:
        return Russian()

    def load(self) -> None:
        """Load the dictionaries, 0.2 s, so that no question waits for them."""
        _ = self._english, self._russian

    def read(self, text: str) -> Reading:
        """Read one question."""
        text = without_courtesy(text)
        cut = tokens(text)
        language = _language(cut)
        morphology: English | Russian = self._russian if language == "russian" else self._english
        lexicon = morphology.lexicon
        plain = [self._word(token, language) for token in cut if token.kind not in OPERATORS]
        asked = asking(plain, lexicon)
        if not asked.kinds and language == "russian" and self._is_yes_or_no(text, plain):
            asked = replace(asked, kinds=YES_OR_NO)
        words = with_roles(with_frames(plain, asked, lexicon), lexicon)
        return Reading(
            language=language,
            lexicon=lexicon,
            words=words,
            quantities=quantities(words, lexicon),
            operators=signs(cut),
            asks=asked.kinds,
            asking_noun="" if asked.noun is None else words[asked.noun].lemma,
            denied=denied(words, lexicon),
            past=any(morphology.is_past(word.text) for word in words),
            past_being=any(morphology.is_past_being(word.text) for word in words),
            superlative=any(morphology.is_superlative(word.text) for word in words),
            pronouns=pronouns(words),
            aims=_aims(text, lexicon),
            clause=russian_clause(words, self._russian) if language == "russian" else english_clause(words),
            quoted=quoted(text, self._russian.lemmas if language == "russian" else _as_written),
        )

    def _is_yes_or_no(self, text: str, words: Sequence[Word]) -> bool:
        """Russian needs no word to ask whether something is so: "Кофе повышает давление?"."""
        return text.rstrip().endswith("?") and any(self._russian.verb(word.text) for word in words)

    def _looked_up(self, token: Token, language: str) -> Word:
        if language == "russian" and token.script == "cyrillic":
            return _russian_word(token, self._russian)
        return _latin_word(token, self._english, foreign=language == "russian")


def _as_written(word: str) -> tuple[str, ...]:
    return (word,)


def _aims(text: str, lexicon: Lexicon) -> frozenset[str]:
    plain = text.casefold().replace("ё", "е")
    found = frozenset(aim for aim, phrases in lexicon.aims.items() if phrases.search(plain))
    # In "is it legal to dismiss somebody who is ill" nobody asks who.
    return found & OF_WHETHER if "yes_or_no" in found else found


def _russian_word(token: Token, russian: Russian) -> Word:
    lemmas = russian.lemmas(token.text)
    function = lemmas[0] in russian.lexicon.function_words or token.text in russian.lexicon.negations
    return Word(
        text=token.text,
        lemmas=lemmas,
        root=russian.root(lemmas[0]),
        is_function=function,
        is_name=not function and (token.capital or russian.is_name(token.text)),
        is_number=is_number(token.text, lemmas[0], russian.lexicon),
        part=russian.part(token.text),
        bare=russian.bare(lemmas[0]),
        cases=russian.cases(token.text) if russian.part(token.text) == "noun" else frozenset(),
    )


def _latin_word(token: Token, english: English, *, foreign: bool) -> Word:
    lemmas = english.lemmas(token.text)
    function = not foreign and (lemmas[0] in english.lexicon.function_words or token.text in english.lexicon.negations)
    return Word(
        text=token.text,
        lemmas=lemmas,
        root=english.root(lemmas[0]),
        is_function=function,
        is_number=is_number(token.text, lemmas[0], english.lexicon),
        is_name=not function and token.kind == "word" and (token.capital or foreign or _is_mixed(token.text)),
    )


def _is_mixed(text: str) -> bool:
    """Letters and digits, as in names of products."""
    return any(letter.isdigit() for letter in text) and any(letter.isalpha() for letter in text)


def _language(cut: Sequence[Token]) -> str:
    """The language most of whose words are in; a Russian question may hold many Latin names."""
    scripts = Counter(token.script for token in cut if token.kind == "word")
    if scripts["cyrillic"]:
        return "russian" if scripts["cyrillic"] * 3 >= scripts["latin"] else "english"
    return "english" if scripts["latin"] else "other"
