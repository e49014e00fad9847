"""Money as integers: micro-units, a millionth of a currency's unit."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

MICROS = 1_000_000
"""Micro-units in one unit of a currency; also the tokens a price is quoted for."""
MOST_MICROS = 10**15
"""Largest amount accepted anywhere, a billion units: sums of amounts still fit 64 bits."""


def ceil_div(dividend: int, divisor: int) -> int:
    """Divide and round up; the divisor is positive."""
    return -(-dividend // divisor)


def to_micros(text: str) -> int:
    """Read a decimal number of units, exactly.

    Raises:
        ValueError: If it is no number, negative, too large or finer than a micro-unit.
    """
    try:
        micros = Decimal(text) * MICROS
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal number") from None
    if not micros.is_finite() or micros != micros.to_integral_value():
        raise ValueError(f"{text!r} is finer than a millionth")
    if not 0 <= micros <= MOST_MICROS:
        raise ValueError(f"{text!r} is not between 0 and {MOST_MICROS // MICROS}")
    return int(micros)


def to_text(micros: int) -> str:
    """Write an amount in units, for people: 1500000 is "1.5"."""
    sign = "-" if micros < 0 else ""
    units, rest = divmod(abs(micros), MICROS)
    return f"{sign}{units}.{rest:06d}".rstrip("0").rstrip(".")
