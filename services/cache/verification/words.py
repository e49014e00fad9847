"""Cuts a question into tokens."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

TOKEN = re.compile(
    r"""
      (?P<number>\d+(?:[.,:/-]\d+)*(?![^\W_]))       # 15  2,5  12.05.2024  17:00
    | (?P<word>(?:[^\W_]+(?:['-][^\W_]+)*)(?:\+\+|\#)?)  # don't  gpt-4  c++
    | (?P<sign>[$€₽£¥%°])
    | (?P<operator>[-+*/=<>^&|~\\@#]+)
    | (?P<stop>[.!?:;\n]+)
    """,
    re.VERBOSE,
)
JOINED = re.compile(r"(?<=\d)-(?:(?:й|я|е|го|му|м|х|ти|ю|ый|ой|ая|ое|ые|ых)\b|(?=[^\W\d_]))")
"""The hyphen of "10-year-old" and the ending of "2020-м": no sign of arithmetic, no unit."""
APOSTROPHES = str.maketrans({"’": "'", "`": "'", "‘": "'", "ё": "е", "Ё": "Е", "–": "-", "—": " ", "\u00a0": " "})
CONTRACTIONS = {"can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not", "let's": "let"}


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a number or a sign as written."""

    text: str
    """Lower case."""
    kind: str
    capital: bool
    """Written with a capital where none is due."""

    @property
    def script(self) -> str:
        """The alphabet: "latin", "cyrillic" or "other"."""
        letter = next((letter for letter in self.text if letter.isalpha()), "")
        return script_of(letter)


def tokens(text: str) -> list[Token]:
    """The tokens of a text, without punctuation."""
    found: list[Token] = []
    due = True
    for match in TOKEN.finditer(_plain(text)):
        kind = str(match.lastgroup)
        if kind != "stop":
            found.extend(_token(match.group(), kind, capital_due=due))
        due = kind == "stop"
    return found


def script_of(letter: str) -> str:
    """Which alphabet a letter belongs to."""
    name = unicodedata.name(letter, "") if letter else ""
    if name.startswith("LATIN"):
        return "latin"
    return "cyrillic" if name.startswith("CYRILLIC") else "other"


def _plain(text: str) -> str:
    return JOINED.sub(" ", unicodedata.normalize("NFKC", text).translate(APOSTROPHES))


def _token(text: str, kind: str, *, capital_due: bool) -> list[Token]:
    acronym = kind == "word" and len(text) > 1 and text.isupper()
    capital = text[0].isupper() and text != "I" and (acronym or not capital_due)
    return [Token(part, kind, capital) for part in _parts(text.lower(), kind)]


def _parts(text: str, kind: str) -> list[str]:
    """A word without its contractions; hyphenated English is several words, hyphenated Russian one."""
    if kind != "word":
        return [text]
    if text.endswith("n't") and text not in CONTRACTIONS:
        return [*text.removesuffix("n't").split(), "not"]
    if text.startswith("по-") and text.endswith("ски"):
        return [text.removeprefix("по-") + "й"]
    whole = CONTRACTIONS.get(text, text).partition("'")[0]
    if "-" in whole and script_of(whole[0]) == "latin" and not any(letter.isdigit() for letter in whole):
        whole = whole.replace("-", " ")
    return whole.split()
