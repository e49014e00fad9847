r"""The language of a rule's phrases: regular expressions whose spaces mean "some separators".

    " "       one or more characters that belong to no word: spaces, punctuation, line breaks
    " ?"      the same, or nothing
    " <3> "   up to three words between
    "\w"      a letter or digit of any script
    "{NAME}"  any of the pack's words of that name

A phrase begins and ends at the edge of a word. Everything else is an ordinary regular expression over folded text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from services.guard.folding import fold, folded_width

LETTER = rb"[a-z0-9\x80-\x9f\xe0-\xff]"
SEPARATOR = rb"[^a-z0-9\x80-\x9f\xe0-\xff]"
CAPITAL = re.compile(rb"(?<!\\)[A-Z]")
TOKEN = re.compile(rb" <(\d{1,2})> | \?| +|\\w")
NAME = re.compile(r"\{([A-Z_]+)\}")
CHARACTER_CLASS = re.compile(r"\[[^\]]*\]")
SYNTAX = re.compile(rb"\\.|\[(?:\\.|[^\]])*\]|\{[\d,]+\}|<\d{1,2}>| \?|\(\?:|[a-z0-9\x80-\xff]+(?![?*+{])|.", re.DOTALL)
"""Letters that nothing repeats stay together."""
GAP = re.compile(rb"<\d{1,2}>")

Words = Mapping[str, str]


class PhraseInvalid(ValueError):
    """A phrase that cannot be read."""


def expand(words: Words) -> Words:
    """Each name's alternatives, which stand apart by " | ", as one expression; a name may use those before it."""
    expanded: dict[str, str] = {}
    for name, alternatives in words.items():
        expanded[name] = "|".join(insert_words(each.strip(), expanded) for each in alternatives.split(" | "))
    return expanded


def insert_words(phrase: str, words: Words) -> str:
    """The phrase with every name in braces replaced by its alternatives."""

    def insert(name: re.Match[str]) -> str:
        if name[1] not in words:
            raise PhraseInvalid(f"{phrase!r}: the pack has no words {name[1]!r}")
        return f"(?:{words[name[1]]})"

    return NAME.sub(insert, phrase)


class Locator:
    """Finds any of a few phrases, and nothing around them."""

    def __init__(self, phrases: Sequence[str], words: Words) -> None:
        """Read the phrases.

        Raises:
            PhraseInvalid: If one of them is no expression in lower case.
        """
        translated = [_translate(fold_pattern(insert_words(phrase, words))) for phrase in phrases]
        if shouted := [phrase for phrase, each in zip(phrases, translated, strict=True) if CAPITAL.search(each)]:
            raise PhraseInvalid(f"{shouted}: phrases are in lower case")
        alternatives = b"|".join(b"(?:%s)" % each for each in translated)
        try:
            # A separator in front lets `re` skip from word to word; ignoring case here would cost three times as much.
            self._expression = re.compile(b"%s(%s)(?!%s)" % (SEPARATOR, alternatives, LETTER))
        except re.error as error:
            raise PhraseInvalid(f"{phrases}: {error}") from error

    def find(self, lowered: bytes) -> Iterator[tuple[int, int]]:
        """Where the phrases stand in folded text in lower case, which begins at the edge of a word."""
        for found in self._expression.finditer(b" " + lowered):
            yield found.start(1) - 1, found.end(1) - 1


def parts(phrase: str, words: Words) -> list[bytes]:
    """For every word of a phrase what stands from it to the next gap, in the language of phrases, folded."""
    split, depth = [[b""]], 0
    for token in SYNTAX.findall(fold_pattern(insert_words(phrase, words))):
        depth += (token in (b"(", b"(?:")) - (token == b")")
        if depth == 0 and GAP.fullmatch(token):
            split.append([b""])
        elif depth == 0 and token == b" ":
            split[-1].append(b"")
        else:
            split[-1][-1] += token
    return [b" ".join(run[first:]).strip() for run in split for first in range(len(run)) if run[first]]


def fold_pattern(source: str) -> bytes:
    """A regular expression over text, as one over folded text.

    Raises:
        PhraseInvalid: If a character class holds a letter that folds to several bytes or none.
    """
    for characters in CHARACTER_CLASS.findall(source):
        if wide := [character for character in characters if folded_width(character) != 1]:
            raise PhraseInvalid(f"write {''.join(wide)!r} outside a character class")
        if re.search("[^\\x00-\\x7f]-|-[^\\x00-\\x7f]", characters):
            raise PhraseInvalid(f"{characters!r}: folded letters have no order; write \\w or list them")
    return fold(source)


def _translate(phrase: bytes) -> bytes:
    return TOKEN.sub(_token, phrase)


def _token(token: re.Match[bytes]) -> bytes:
    match token[0]:
        case rb"\w":
            return LETTER
        case b" ?":
            return SEPARATOR + b"*"
        case _ if token[1] is None:
            return SEPARATOR + b"+"
    return b"(?:%s+%s+){0,%s}%s+" % (SEPARATOR, LETTER, token[1], SEPARATOR)
