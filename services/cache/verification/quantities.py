"""Numbers and what they count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain

from services.cache.verification.numerals import number_at
from services.cache.verification.reading import Quantity, Reading, Word
from services.cache.verification.vocabulary import Lexicon

ARTICLES = frozenset({"a", "an"})
CURRENCY_SIGNS = frozenset("$€₽£¥")
CURRENCIES = ("usd", "eur", "rub", "gbp", "jpy", "cny")
YEAR_DIGITS, CENTURIES = 4, ("19", "20")
MEASURES: Sequence[Mapping[str, float]] = (
    {"mg": 0.001, "g": 1, "kg": 1000, "tonne": 1_000_000, "oz": 28.349523125, "lb": 453.59237},
    {"mm": 1, "cm": 10, "m": 1000, "km": 1_000_000, "inch": 25.4, "foot": 304.8, "yard": 914.4, "mile": 1_609_344},
    {"ml": 1, "l": 1000},
    {"second_": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800},
    {"month": 1, "year": 12, "century": 1200},
    {"watt": 1, "kw": 1000},
    {"percent": 1},
    *({currency: 1} for currency in CURRENCIES),
)
"""Units of which one is a multiple of the other, with their sizes."""
SIZED = frozenset(chain.from_iterable(MEASURES)) - {"year"}


def quantities(words: Sequence[Word], lexicon: Lexicon) -> tuple[Quantity, ...]:
    """The numbers of a question in order; a number in words is the same as in digits."""
    found: list[Quantity] = []
    position = 0
    while position < len(words):
        values, unit, length = number_at(words, position, lexicon)
        counted = unit or _counted(words, position, position + length, lexicon)
        found += [Quantity(value, "") for value in values[:-1]] + [Quantity(value, counted) for value in values[-1:]]
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


def numbers_contradict(left: Reading, right: Reading) -> bool:
    """Whether each has a number that the other lacks; one that only one of them gives may be meant by the other too."""
    return _has_another(left.quantities, right.quantities) and _has_another(right.quantities, left.quantities)


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


def _has_another(mine: Sequence[Quantity], yours: Sequence[Quantity]) -> bool:
    return any(not any(_is_one(one, other) for other in yours) for one in mine)


def _is_one(one: Quantity, other: Quantity) -> bool:
    """Whether two quantities are the same, in other units perhaps: "14 days" and "two weeks", "1964" and "'64"."""
    if one == other:
        return True
    counted = {one.counted, other.counted}
    if counted.isdisjoint(SIZED) and _is_one_year(one.value, other.value):
        return True
    measure = next((measure for measure in MEASURES if counted <= measure.keys()), None)
    if measure is not None:
        return math.isclose(_size(one, measure), _size(other, measure))
    if counted <= set(CURRENCIES):
        return False
    return one.value == other.value


def _is_one_year(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return len(longer) == YEAR_DIGITS and longer.startswith(CENTURIES) and longer[2:] == shorter


def _size(quantity: Quantity, measure: Mapping[str, float]) -> float:
    try:
        return float(quantity.value) * measure[quantity.counted]
    except ValueError:
        return math.nan


def _speaks_of(reading: Reading, counted: str) -> bool:
    return counted in reading.lemmas or counted in reading.units


def _counts_another(mine: str, yours: str, left: Reading, right: Reading) -> bool:
    """Two units differ; or the word counted here stands elsewhere there, so that the number has moved."""
    if mine == yours:
        return False
    both_units = mine in left.lexicon.units.values() and yours in right.lexicon.units.values()
    moved = (mine in right.lemmas or mine in right.units) and bool(yours)
    return both_units or moved


def _counted(words: Sequence[Word], start: int, end: int, lexicon: Lexicon) -> str:
    before = words[start - 1] if start else None
    if before and before.text in CURRENCY_SIGNS:
        return lexicon.units.get(before.lemma, "")
    following = next((word for word in words[end : end + 2] if word.text not in ARTICLES), None)
    if following is None or following.is_number:
        return ""
    return lexicon.units.get(following.lemma) or (following.lemma if following.is_content else "")
