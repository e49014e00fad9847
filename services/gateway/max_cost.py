"""The most that one request may cost."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from meshkit.errors import FieldInvalid

HEADER = "x-llmmesh-max-cost"
MICROS = 1_000_000
"""Micro-units in one unit of a currency."""
MOST_MICROS = 10**15
"""A billion units, the largest amount that billing knows."""
LONGEST_ECHO = 40
"""Characters of a caller's own words that an error repeats."""


def max_cost_in_headers(metadata: Iterable[tuple[str, str | bytes]] | None) -> int | None:
    """What the header says, in micro-units; None without one. Raises FieldInvalid when it cannot be understood."""
    found = [value for name, value in metadata or () if name == HEADER and isinstance(value, str)]
    return least(*(_micros_in(value) for value in found)) if found else None


def checked_max_cost(field: str, amount: Decimal | None) -> int | None:
    """An amount of units in micro-units. Raises FieldInvalid when it is out of range or finer than those."""
    if amount is None:
        return None
    if not amount.is_finite() or not 0 <= amount <= MOST_MICROS // MICROS:
        raise FieldInvalid(field, f"must be from 0 to {MOST_MICROS // MICROS} units of the currency")
    micros = amount * MICROS
    if micros != int(micros):
        raise FieldInvalid(field, "must not be finer than a millionth of a unit")
    return int(micros)


def checked_micros(field: str, micros: int | None) -> int | None:
    """An amount of micro-units. Raises FieldInvalid when it is out of range."""
    if micros is not None and not 0 <= micros <= MOST_MICROS:
        raise FieldInvalid(field, f"must be from 0 to {MOST_MICROS} micro-units")
    return micros


def least(*micros: int | None) -> int | None:
    """The strictest of several limits; None is no limit."""
    return min((each for each in micros if each is not None), default=None)


def _micros_in(text: str) -> int | None:
    try:
        return checked_max_cost(HEADER, Decimal(text.strip()))
    except InvalidOperation:
        raise FieldInvalid(HEADER, f"must be a number of units such as 0.05, not {text[:LONGEST_ECHO]!r}") from None
