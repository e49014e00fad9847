"""English words: lemmas by rule, irregular forms by list."""

from __future__ import annotations

from functools import lru_cache

from services.cache.verification.vocabulary import Lexicon, lexicon, load_table, word_set

VOWELS = frozenset("aeiouy")
DERIVED = (
    *("ization", "isation", "ation", "ition", "ement", "ment", "ness", "ance", "ence", "tion", "sion", "ion", "ity"),
    *("able", "ible", "ally", "ly", "ive", "ize", "ise", "ify", "ical", "ic", "al", "ous", "ean", "y"),
)
"""Endings that turn a word into another part of speech; -less, -ful, -er and -ee change what it means."""
SHORTEST_ROOT = 4
PAST_BEING = frozenset({"was", "were"})
SUPERLATIVES = frozenset({"most", "least", "best", "worst"})
NO_SUPERLATIVES = word_set(
    "forest interest request harvest contest protest invest suggest arrest digest manifest honest modest latest "
    "everest budapest bucharest northwest southwest conquest inquest earnest"
)


class English:
    """Reads English words."""

    def __init__(self) -> None:
        table = load_table("en")
        self._irregular = {form: base for base, forms in table["irregular"].items() for form in forms.split()}
        self.lexicon: Lexicon = lexicon(table, self.lemma)

    def lemma(self, word: str) -> str:
        """The base form, less a final e, which inflection hides: "making" and "make" are both "mak"."""
        base = self._irregular.get(word) or regular(word)
        return base.removesuffix("e") if len(base) > 3 else base

    def lemmas(self, word: str) -> tuple[str, ...]:
        """All base forms the word may have."""
        return (self.lemma(word),)

    def is_past(self, word: str) -> bool:
        """Whether the form speaks of the past."""
        if word in PAST_BEING:
            return True
        irregular = self._irregular.get(word, word) != word and not word.endswith(("ing", "s", "er", "est"))
        return irregular or (len(word) > 4 and word.endswith("ed"))

    def is_past_being(self, word: str) -> bool:
        """Whether the form is "was" or "were"."""
        return word in PAST_BEING

    def is_superlative(self, word: str) -> bool:
        """Whether the form asks for the most of something."""
        return word in SUPERLATIVES or (len(word) > 5 and word.endswith("est") and word not in NO_SUPERLATIVES)

    def root(self, lemma: str) -> str:
        """What related words share: "install" and "installation"."""
        return root(lemma)


@lru_cache(maxsize=8192)
def regular(word: str) -> str:
    """The base form of a regular noun or verb."""
    if len(word) > 4 and word.endswith(("ies", "ied")):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    for ending in ("ing", "est", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) > 2 and VOWELS & set(base):
            return _single(base)
    return word


def root(lemma: str) -> str:
    """The lemma without one derivational ending."""
    for ending in DERIVED:
        if lemma.endswith(ending) and len(lemma) - len(ending) >= SHORTEST_ROOT:
            return lemma[: -len(ending)]
    return lemma


def _single(base: str) -> str:
    """Undo the doubling in "stopped"."""
    doubled = len(base) > 3 and base[-1] == base[-2] and base[-1] not in VOWELS and base[-1] not in "lsz"
    return base[:-1] if doubled else base
