"""Reads numbers, in digits and in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.cache.verification.reading import Word
from services.cache.verification.vocabulary import Lexicon, word_set

THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?")
NUMBER_WITH_TAIL = re.compile(r"(\d+(?:[.,]\d+)?)(\D+)")
DATE = re.compile(r"\d+(?:\.\d+){2,}")
JOINT, LEADING_ZEROS = re.compile(r"[:/-]"), re.compile(r"^0+(?=\d)")
FRACTIONS = {"1/2": "0.5", "1/4": "0.25", "3/4": "0.75"}
CLOCK = 2
"""A time is hours, or hours and minutes."""
THOUSAND_TAILS, ORDINAL_TAILS = word_set("k к"), word_set("st nd rd th s й я е го му м х")
COMPOUND = re.compile(
    r"(двух|трех|четырех|пяти|шести|семи|восьми|девяти|десяти|двенадцати|пятнадцати|двадцати|тридцати|сорока|"
    r"пятидесяти|шестидесяти|семидесяти|восьмидесяти|девяноста|ста)"
    r"(?:дневн|недел|месячн|летн|лет[ик]|годичн|часов|минутн|секундн|суточн|комнатн|этажн|фактор|значн|кратн|местн|"
    r"дверн|тысячн|страничн|килограмм|грамм|литр|метр|градус|процент|тонн|рубл|колес|звездочн|балльн)"
)
"""A Russian word with a number in it: "трёхдневный"."""
COMPOUND_VALUES = dict(
    zip(
        COMPOUND.pattern.partition("(")[2].partition(")")[0].split("|"),
        (*range(2, 11), 12, 15, *range(20, 101, 10)),
        strict=True,
    )
)
HUNDRED, THOUSAND = 100, 1000
CENTURIES = range(16, 21)
"""In how many hundreds a year begins that is said in two halves: "nineteen eighty-four"."""
NOON = 12
LATER = {"am": 0, "pm": NOON, "утра": 0, "вечера": NOON}
"""Hours after midnight at which a half of the day begins."""
LATER_AFTER_HOURS = {**LATER, "дня": NOON, "ночи": 0}
"""Behind "часа": without it "3 дня" are days."""
HOURS = "час"


def number_at(words: Sequence[Word], position: int, lexicon: Lexicon) -> tuple[list[str], str, int]:
    """The numbers written as one, the unit written with them, and of how many words; none when no number stands there.

    Dates, times, ranges and sizes are several: "9:40", "2019-2024".
    """
    text, following = words[position].text, words[position + 1 :]
    if not text[0].isdecimal():
        value, length = _in_words(words[position:], lexicon)
        return ([_written(value)] if length else []), "", length
    values, tail = _digits_and_tail(text)
    if tail in THOUSAND_TAILS:
        return [_written(float(values[0]) * THOUSAND)], "", 1
    if len(values) <= CLOCK and (time := _of_day(values, tail, following)):
        return time, "", 1
    unit = "" if tail in ORDINAL_TAILS else lexicon.units.get(tail, tail)
    if unit or len(values) > 1:
        return values, unit, 1
    number, length = _scaled(values[0], following, lexicon)
    return [number], "", length


def named_number(text: str, lemma: str, lexicon: Lexicon) -> float | None:
    """The number that a word says; None where it says none. "Hundreds" is not a hundred, nor a second of time two."""
    value = lexicon.numbers.get(text)
    if value is None and not text.endswith("s"):
        value = lexicon.numbers.get(lemma, _compound(lemma))
    return value


def is_number(text: str, lemma: str, lexicon: Lexicon) -> bool:
    """Whether a word is a number; "one" and "first" say more."""
    return text[0].isdecimal() or named_number(text, lemma, lexicon) not in (None, 1)


def _compound(lemma: str) -> float | None:
    found = COMPOUND.match(lemma)
    return COMPOUND_VALUES[found[1]] if found else None


def _digits_and_tail(text: str) -> tuple[list[str], str]:
    tailed = NUMBER_WITH_TAIL.fullmatch(text)
    digits, tail = tailed.groups() if tailed else (text, "")
    if digits in FRACTIONS:
        return [FRACTIONS[digits]], tail
    if THOUSANDS.fullmatch(digits):
        return [digits.replace(",", "")], tail
    parts = digits.split(".") if DATE.fullmatch(digits) else JOINT.split(digits.replace(",", "."))
    if ":" in digits:
        parts = [part for part in parts if part != "00"] or ["0"]
    return [LEADING_ZEROS.sub("", part) for part in parts], tail


def _scaled(digits: str, following: Sequence[Word], lexicon: Lexicon) -> tuple[str, int]:
    """Digits and the "thousand" or "million" after them."""
    if not following or not digits.replace(".", "", 1).isdecimal():
        return digits, 1
    scale = named_number(following[0].text, following[0].lemma, lexicon) or 1
    return (_written(float(digits) * scale), 2) if scale >= HUNDRED else (digits, 1)


def _of_day(values: Sequence[str], tail: str, following: Sequence[Word]) -> list[str] | None:
    """A time on a clock of twelve hours as one of twenty-four; None where it is none."""
    begins = _half_of_day(tail, [word.text for word in following[:2]])
    if begins is None or not (values[0].isdecimal() and 1 <= int(values[0]) <= NOON):
        return None
    return [str(int(values[0]) % NOON + begins), *values[1:]]


def _half_of_day(tail: str, following: Sequence[str]) -> int | None:
    first, second = (*following, "", "")[:2]
    if tail:
        return LATER.get(tail)
    if first.startswith(HOURS):
        return LATER_AFTER_HOURS.get(second)
    return LATER.get(first + second if second == "m" else first)


def _written(value: float) -> str:
    return f"{value:.10g}"


def _in_words(words: Sequence[Word], lexicon: Lexicon) -> tuple[float, int]:
    """The number that the first words say together, and how many of them; none where it is but "one"."""
    thousands, below, length = 0.0, 0.0, 0
    for place, word in enumerate(words):
        value = named_number(word.text, word.lemma, lexicon)
        if value is None and word.text == "and" and (thousands or below >= HUNDRED):
            continue
        if value is None or (length and value < THOUSAND and not _follows(value, below)):
            break
        if value >= THOUSAND:
            thousands, below = thousands + (below or 1) * value, 0
        elif _says_hundreds(value, below):
            below = below * HUNDRED + (value if value < HUNDRED else 0)
        else:
            below += value
        length = place + 1
    return (thousands + below, length) if thousands + below != 1 else (0.0, 0)


def _says_hundreds(value: float, below: float) -> bool:
    """Whether what was said counts hundreds, as "two" before "hundred" and "nineteen" before "eighty" do."""
    return (0 < below < HUNDRED and value == HUNDRED) or (below in CENTURIES and 10 <= value < HUNDRED)


def _follows(value: float, below: float) -> bool:
    """Whether a number goes on with `value`: "twenty" with "five", "two" with "hundred", but "five" not with "six"."""
    room = HUNDRED if below % HUNDRED == 0 else 10 if below >= 20 and below % 10 == 0 else 0
    return not below or value < room or _says_hundreds(value, below)
