"""Cuts a question into tokens."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

TOKEN = re.compile(
    r"""
      (?P<number>\d+(?:[.,:/-]\d+)*(?![^\W_]|[.,]\d))  # 15  2,5  12.05.2024  17:00
    | (?P<word>(?:\d+[.,](?=\d))?(?:[^\W_]+(?:['-][^\W_]+)*)(?:\+\+|\#)?)  # don't  gpt-4  c++  3.3v
    | (?P<sign>[$€₽£¥%°])
    | (?P<minus>(?<![^\s(])-(?=\d))  # below zero: -5
    | (?P<operator>[-+*/=<>^&|~\\@#]+)
    | (?P<stop>[.!?:;\n]+)
    """,
    re.VERBOSE,
)
JOINED = re.compile(r"(?<=\d)-(?:(?:й|я|е|го|му|м|х|ти|ю|ый|ой|ая|ое|ые|ых)\b|(?=[^\W\d_]))")
"""The hyphen of "10-year-old" and the ending of "2020-м": no sign of arithmetic, no unit."""
GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3})+(?!\d)")
"""Thousands set apart by spaces: "100 000"."""
CROSS = re.compile(r"(?<=\d)(?<!\b0) ?[xXхХ×] ?(?=\d)")
"""Between the sides of a size or of a product: "60x40 cm", "12 x 4"."""
ROMAN = re.compile(r"\b(?=[IVX]{2})X{0,3}(?:IX|IV|V?I{0,3})(?<=[IVX])\b")
ROMAN_DIGITS = {"I": 1, "V": 5, "X": 10}
OPERATORS = frozenset({"operator", "minus"})
"""Kinds of tokens that are no words."""
JOINING = frozenset({"-", "--", "+", "/", "=", "->", "=>", ">"})
"""Signs that people also set between words: "orange -> vodafone"."""
APOSTROPHES = str.maketrans({"’": "'", "`": "'", "‘": "'", "ё": "е", "Ё": "Е", "–": "-", "—": " ", "\u00a0": " "})
SIGNS = str.maketrans({"№": " ", "−": "-", "½": " 1/2", "¼": " 1/4", "¾": " 3/4"})
"""What compatibility forms would join to the number beside it, or leave unreadable."""
RAISED = re.compile(r"(?<=\d)(?=[\u00b2\u00b3\u00b9\u2070\u2074-\u2079])(?<![\u00b2\u00b3\u00b9\u2070\u2074-\u2079])")
"""Where an exponent begins: "2⁷"."""
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


def signs(cut: Sequence[Token]) -> tuple[str, ...]:
    """Signs of arithmetic and of code, in order; one that joins words is none."""
    around = zip((None, *cut), cut, (*cut[1:], None), strict=False)
    return tuple(chain.from_iterable(_signs(token, before, after) for before, token, after in around))


def _signs(token: Token, before: Token | None, after: Token | None) -> Sequence[str]:
    if token.kind == "number":
        return [sign for sign in token.text if sign in JOINING]
    joins = token.kind == "operator" and token.text in JOINING and not (_is_term(before) and _is_term(after))
    return [token.text] if token.kind in OPERATORS and not joins else ()


def _is_term(token: Token | None) -> bool:
    """Whether it may stand in a formula."""
    return token is not None and (token.text[0].isdigit() or (token.kind == "word" and len(token.text) == 1))


def script_of(letter: str) -> str:
    """Which alphabet a letter belongs to."""
    name = unicodedata.name(letter, "") if letter else ""
    if name.startswith("LATIN"):
        return "latin"
    return "cyrillic" if name.startswith("CYRILLIC") else "other"


def _plain(text: str) -> str:
    spelled = RAISED.sub("^", text.translate(SIGNS))
    plain = JOINED.sub(" ", unicodedata.normalize("NFKC", spelled).translate(APOSTROPHES))
    plain = GROUPED.sub(lambda found: found[0].replace(" ", ""), CROSS.sub(" * ", plain))
    return ROMAN.sub(lambda found: str(_arabic(found[0])), plain)


def _arabic(roman: str) -> int:
    values = [ROMAN_DIGITS[digit] for digit in roman]
    return sum(-one if one < following else one for one, following in zip(values, [*values[1:], 0], strict=True))


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
