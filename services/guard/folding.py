"""Folds text to one byte a letter, so that a letter and its disguises become the same byte.

Case of Latin letters is kept (secrets depend on it; matching ignores it); everything invisible is gone.

bytes 0x00-0x7f   ASCII as it is; Cyrillic, Greek and other letters that look like a Latin one, as that letter
bytes 0x80-0x9f   letters of other scripts, four bytes each
byte  "*"         any other symbol
bytes 0xe0-0xff   Cyrillic letters that look like no Latin one, in lower case (windows-1251 order)
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from confusable_homoglyphs.confusables import confusables_data

FOLDING_VERSION = "2"

SYMBOL = b"*"
OTHER_LETTER = 0x80
SIGNS = "«»„“”‘’‚–—−…•·№°€₽×\u00a0Ёё"
SIGNS_FOLDED = """\"\"\"\"\"'''---.**#*$$x ee"""
FIRST_SIGN = 0xA0
FIRST_CYRILLIC = 0xC0
CYRILLIC = "".join(map(chr, range(ord("А"), ord("я") + 1)))
INVISIBLE_LETTERS = "\u115f\u1160\u3164\uffa0"
LATIN_NAME = re.compile(r"(?:.* )?(?:LATIN|REGIONAL) .*LETTER (?:[A-Z]+ )*([A-Z])(?: WITH .+)?$")
CONTROL = bytes({*range(32), 0x7F} - set(b"\t\n\v\f\r"))
FOLD_ERRORS = "llmmesh.fold"


def fold(text: str) -> bytes:
    """The folded text."""
    return codecs.charmap_encode(text, FOLD_ERRORS, ALPHABET)[0].translate(FOLDED, CONTROL)


def origins(text: str) -> Sequence[int]:
    """For every byte of `fold(text)` the index of the character it comes from; last, the length of the text."""
    if is_one_to_one(text):
        return range(len(text) + 1)
    indices = [index for index, character in enumerate(text) for _ in range(folded_width(character))]
    indices.append(len(text))
    return indices


def is_one_to_one(text: str) -> bool:
    """Whether it is plain to see that every character folds to exactly one byte."""
    known = codecs.charmap_encode(text, "ignore", ALPHABET)[0].translate(None, CONTROL)
    return len(known) == len(text)


@cache
def folded_width(character: str) -> int:
    """How many bytes a character folds to: 0 for an invisible one."""
    return len(fold(character))


def latin_lookalike(letter: str) -> str:
    """The Latin letter that a letter is drawn like, by Unicode's confusables; empty when there is none."""
    for entry in confusables_data.get(letter, []):
        double: str = entry["c"]
        if len(double) == 1 and double.isascii() and double.isalpha():
            return "I" if double == "l" and letter.isupper() else double
    name = LATIN_NAME.match(unicodedata.name(letter, ""))
    return name[1].lower() if name else ""


def _cyrillic_fold(letter: str) -> bytes:
    """Both cases of a letter fold alike, although often only the capital has a Latin double."""
    lower = unicodedata.normalize("NFD", letter.lower())[0]
    latin = latin_lookalike(lower) or latin_lookalike(lower.upper()).lower()
    if not latin:
        return lower.encode("cp1251")
    return (latin.upper() if letter.isupper() else latin).encode()


def _fold_part(part: str) -> bytes:
    if (byte := ALPHABET_BYTES.get(part)) is not None:
        return bytes([byte])
    match unicodedata.category(part):
        case "Mn" | "Me" | "Cf" | "Cc":
            return b""
        case "Zs" | "Zl" | "Zp":
            return b" "
        case "Pd":
            return b"-"
        case "Pi" | "Pf":
            return b'"'
        case "Nd":
            return str(unicodedata.decimal(part)).encode()
        case category:
            return _fold_letter(part) if category[0] in "LM" or "LETTER" in unicodedata.name(part, "") else SYMBOL


def _fold_letter(letter: str) -> bytes:
    if latin := latin_lookalike(letter):
        return latin.encode()
    for entry in confusables_data.get(letter, []):
        if (byte := ALPHABET_BYTES.get(entry["c"])) is not None:
            return bytes([byte])
    return bytes(OTHER_LETTER + (ord(letter) >> shift & 31) for shift in (15, 10, 5, 0))


@cache
def _fold_character(character: str) -> bytes:
    """Bytes of ALPHABET for a character outside it."""
    if "\U000e0020" <= character <= "\U000e007e":  # tag characters carry hidden ASCII
        return bytes([ord(character) - 0xE0000])
    if character in INVISIBLE_LETTERS:
        return b""
    return b"".join(map(_fold_part, unicodedata.normalize("NFKD", character)))


def _fold_unencodable(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    return b"".join(map(_fold_character, error.object[error.start : error.end])), error.end


def _alphabet() -> str:
    """The characters that the codec knows by themselves; private-use ones fill the unused places."""
    unused = "".join(map(chr, range(0xF700, 0xF720)))
    signs = SIGNS.ljust(FIRST_CYRILLIC - FIRST_SIGN, "\ufffe")
    return "".join(map(chr, range(128))) + unused + signs + CYRILLIC


def _folded() -> bytes:
    """What each place of the alphabet folds to."""
    table = bytearray(range(256))
    for place, folded in enumerate(SIGNS_FOLDED, FIRST_SIGN):
        table[place] = ord(folded)
    for place, letter in enumerate(CYRILLIC, FIRST_CYRILLIC):
        table[place] = _cyrillic_fold(letter)[0]
    return bytes(table)


ALPHABET = codecs.charmap_build(_alphabet())
ALPHABET_BYTES = {character: place for place, character in enumerate(_alphabet()) if character != "\ufffe"}
FOLDED = _folded()
codecs.register_error(FOLD_ERRORS, _fold_unencodable)
