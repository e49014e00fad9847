"""Numbers and what they count."""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.cache.verification.reading import Quantity, Reading, Word
from services.cache.verification.vocabulary import Lexicon, word_set

THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
NUMBER_WITH_TAIL = re.compile(r"(\d+(?:[.,]\d+)?)(\D+)")
ORDINAL_TAILS = word_set("st nd rd th s й я е го му м х")
COMPOUND = re.compile(
    r"(двух|трех|четырех|пяти|шести|семи|восьми|девяти|десяти|двенадцати|пятнадцати|двадцати|тридцати|сорока|пятидесяти)"
    r"(?:дневн|недел|месячн|летн|лет[ик]|годичн|часов|минутн|комнатн|этажн|фактор|значн|кратн|местн|дверн|тысячн|страничн)"
)
"""A Russian word with a number in it: "трёхдневный"."""
COMPOUND_VALUES = {
    **dict(
        zip(
            ("двух", "трех", "четырех", "пяти", "шести", "семи", "восьми", "девяти", "десяти"),
            range(2, 11),
            strict=True,
        )
    ),
    "двенадцати": 12,
    "пятнадцати": 15,
    "двадцати": 20,
    "тридцати": 30,
    "сорока": 40,
    "пятидесяти": 50,
}
THOUSAND = 1000
CURRENCY_SIGNS = frozenset("$€₽£¥")


def quantities(words: Sequence[Word], lexicon: Lexicon) -> tuple[Quantity, ...]:
    """The numbers of a question in order; a number in words is the same as in digits."""
    found: list[Quantity] = []
    position = 0
    while position < len(words):
        value, tail, length = _number_at(words, position, lexicon)
        if length:
            found.append(Quantity(value, tail or _counted(words, position, position + length, lexicon)))
        position += max(length, 1)
    return tuple(found)


def quantities_differ(left: Reading, right: Reading) -> bool:
    """Whether a number differs, or counts another thing, or stands in another order."""
    if left.units != right.units or left.operators != right.operators:
        return True
    if [quantity.value for quantity in left.quantities] != [quantity.value for quantity in right.quantities]:
        return True
    pairs = zip(left.quantities, right.quantities, strict=True)
    return any(_counts_another(mine.counted, yours.counted, left, right) for mine, yours in pairs)


def counts_exchanged(left: Reading, right: Reading) -> bool:
    """Whether a number counts here what it is turned into there, and the other way round: "5 euros in pounds"."""
    counted = {quantity.value: quantity.counted for quantity in left.quantities if quantity.counted}
    return any(
        counted.get(other.value, other.counted) != other.counted
        and _speaks_of(left, other.counted)
        and _speaks_of(right, counted[other.value])
        for other in right.quantities
        if other.counted
    )


def _speaks_of(reading: Reading, counted: str) -> bool:
    return counted in reading.lemmas or counted in reading.units


def _counts_another(mine: str, yours: str, left: Reading, right: Reading) -> bool:
    """Two units differ; or the word counted here stands elsewhere there, so that the number has moved."""
    if mine == yours:
        return False
    both_units = mine in left.lexicon.units.values() and yours in right.lexicon.units.values()
    moved = (mine in right.lemmas or mine in right.units) and bool(yours)
    return both_units or moved


def _number_at(words: Sequence[Word], position: int, lexicon: Lexicon) -> tuple[str, str, int]:
    """Value, unit written with it, and number of words; length 0 when no number stands there."""
    text = words[position].text
    if text[0].isdigit():
        digits, tail = _digits_and_tail(text)
        unit = "" if tail in ORDINAL_TAILS else lexicon.units.get(tail, tail)
        return (digits, unit, 1) if unit else _scaled(digits, words[position + 1 :], lexicon)
    return _number_in_words(words, position, lexicon)


def _scaled(digits: str, following: Sequence[Word], lexicon: Lexicon) -> tuple[str, str, int]:
    """Digits and the "thousand" or "million" after them."""
    scale = (_named_number(following[0], lexicon) if following else None) or 1
    if scale < THOUSAND or not digits.replace(".", "", 1).isdigit():
        return digits, "", 1
    return _written(float(digits) * scale), "", 2


def _written(value: float) -> str:
    return f"{value:.10g}"


def _digits_and_tail(text: str) -> tuple[str, str]:
    tailed = NUMBER_WITH_TAIL.fullmatch(text)
    digits, tail = tailed.groups() if tailed else (text, "")
    if THOUSANDS.fullmatch(digits):
        return digits.replace(",", ""), tail
    return digits.replace(",", "."), tail


def _number_in_words(words: Sequence[Word], position: int, lexicon: Lexicon) -> tuple[str, str, int]:
    total, length = 0.0, 0
    for word in words[position:]:
        value = _named_number(word, lexicon)
        if value is None:
            break
        total = total * value if length and value >= 100 and value > total else total + value
        length += 1
    return (_written(total) if length else ""), "", length


def _named_number(word: Word, lexicon: Lexicon) -> float | None:
    return lexicon.numbers.get(word.text, lexicon.numbers.get(word.lemma, compound(word.lemma)))


def compound(lemma: str) -> float | None:
    """The number in a Russian word such as "трёхдневный"; None where there is none."""
    found = COMPOUND.match(lemma)
    return COMPOUND_VALUES[found[1]] if found else None


def _counted(words: Sequence[Word], start: int, end: int, lexicon: Lexicon) -> str:
    before = words[start - 1] if start else None
    if before and before.text in CURRENCY_SIGNS:
        return lexicon.units[before.lemma]
    following = words[end] if end < len(words) else None
    if following is None:
        return ""
    return lexicon.units.get(following.lemma) or (following.lemma if following.is_content else "")
