"""Tells real numbers from look-alikes: each check takes what a pattern matched and returns the part that is real.

Every check works on folded text and returns the start and end of the genuine number inside it, or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import phonenumbers

from services.guard import registries

Check = Callable[[bytes], "tuple[int, int] | None"]

CARD_NETWORKS = re.compile(
    rb"4(?:\d{15}|\d{18})"  # Visa
    rb"|220[0-4]\d{12,15}"  # Mir
    rb"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    rb"|3[47]\d{13}"  # American Express
    rb"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    rb"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    rb"|6(?:011|5\d\d|4[4-9]\d)\d{12}"  # Discover
    rb"|62\d{14,17}"  # UnionPay
    rb"|(?:50|5[6-9]|6[0-9])\d{14,17}"  # Maestro
)
DIGIT = re.compile(rb"\d")
DIGIT_GROUP = re.compile(rb"(?<!\d)\d")
INN_WEIGHTS = (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)
VALUE = re.compile(rb"[^\s:=\"']+")
UPPER = re.compile(rb"[A-Z]")
LOWER = re.compile(rb"[a-z]")
FEWEST_OF_EACH_CASE = 3
FEWEST_DISTINCT = 7
PLACEHOLDER = re.compile(rb"example|your|xxxx|0000|1234567890|abcdefgh|test_?key|changeme", re.IGNORECASE)


def luhn(digits: bytes) -> bool:
    """Whether the last digit is the Luhn check digit of the others."""
    values = [digit - 48 for digit in reversed(digits)]
    doubled = (value * 2 - 9 if value > 4 else value * 2 for value in values[1::2])
    return (sum(values[::2]) + sum(doubled)) % 10 == 0


def card(matched: bytes) -> tuple[int, int] | None:
    """A payment card of a known network ending where the match ends, starting at any of its digit groups."""
    for group in DIGIT_GROUP.finditer(matched):
        digits = b"".join(DIGIT.findall(matched, group.start()))
        if CARD_NETWORKS.fullmatch(digits) and len(set(digits)) > 1 and luhn(digits):
            return group.start(), len(matched)
    return None


def snils(matched: bytes) -> tuple[int, int] | None:
    """A Russian pension insurance number."""
    digits = [int(digit) for digit in DIGIT.findall(matched)][-11:]
    total = sum(digit * weight for digit, weight in zip(digits, range(9, 0, -1), strict=False))
    control = total % 101 % 100
    genuine = len(digits) == 11 and any(digits) and control == digits[9] * 10 + digits[10]
    return (_start(matched), len(matched)) if genuine else None


def inn(matched: bytes) -> tuple[int, int] | None:
    """A Russian taxpayer number, of a person (12 digits) or an organisation (10)."""
    digits = [int(digit) for digit in DIGIT.findall(matched)]
    places = {10: (9,), 12: (10, 11)}.get(len(digits), ())
    genuine = bool(places) and any(digits) and all(_inn_control(digits[:at]) == digits[at] for at in places)
    return (0, len(matched)) if genuine else None


def _inn_control(digits: list[int]) -> int:
    weights = INN_WEIGHTS[-len(digits) :]
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=True)) % 11 % 10


def phone(matched: bytes) -> tuple[int, int] | None:
    """A telephone number that exists in its country's plan; without a country code, in Russia's."""
    start = _start(matched)
    try:
        number = phonenumbers.parse(matched[start:].decode("latin-1"), "RU")
    except phonenumbers.NumberParseException:
        return None
    return (start, len(matched)) if phonenumbers.is_valid_number(number) else None


def credential(matched: bytes) -> tuple[int, int] | None:
    """A secret that looks random; words and placeholders such as sk-xxxx or ...EXAMPLE are none."""
    start = _start(matched)
    value = VALUE.findall(matched[start:])[-1]
    mixed = min(len(UPPER.findall(value)), len(LOWER.findall(value))) >= FEWEST_OF_EACH_CASE
    random = len(set(value)) >= FEWEST_DISTINCT and (mixed or DIGIT.search(value)) and not PLACEHOLDER.search(matched)
    return (start, len(matched)) if random else None


def _start(matched: bytes) -> int:
    """Where what is looked for begins: JSON's escape of a line break may stand before it."""
    return 2 if matched.startswith(b"\\") else 0


CHECKS: dict[str, Check] = {
    "card": card,
    "credential": credential,
    "inn": inn,
    "phone": phone,
    "snils": snils,
    **registries.CHECKS,
}
