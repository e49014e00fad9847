"""Control sums of Russian and international registries: state numbers, bank accounts, health insurance.

Every check takes what a pattern matched, folded, and returns the start and end of the genuine number in it, or None.
"""

from __future__ import annotations

import re

Span = tuple[int, int]

DIGIT = re.compile(rb"\d")
IBAN = re.compile(rb"[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}", re.IGNORECASE)
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL TL",
        24: "AD CZ ES MD RO SA SE SK TN",
        25: "PT",
        26: "IS TR",
        27: "FR GR IT MC SM",
        28: "AL AZ BY CY HU LB PL",
        29: "UA",
        31: "MT",
        33: "RU",
    }.items()
    for country in countries.split()
}
"""Characters of an IBAN by country, from the registry of SWIFT."""
ACCOUNT_WEIGHTS = (7, 1, 3)
BIK_DIGITS, ACCOUNT_DIGITS, OMS_DIGITS = 9, 20, 16
GROUP = re.compile(rb"\d+")


def iban(matched: bytes) -> Span | None:
    """An international bank account number: length of its country, remainder 1 of 97."""
    for found in IBAN.finditer(matched):
        length = IBAN_LENGTHS.get(found[0][:2].decode().upper())
        end = _end_of(found[0], length) if length else None
        if end is not None and _iban_remainder(found[0][:end]) == 1:
            return found.start(), found.start() + end
    return None


def _end_of(text: bytes, length: int) -> int | None:
    """Where the first `length` characters that are no spaces end."""
    places = [place for place, byte in enumerate(text, 1) if byte != 0x20]
    return places[length - 1] if len(places) >= length else None


def _iban_remainder(text: bytes) -> int:
    compact = text.replace(b" ", b"").decode().upper()
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97


def ogrn(matched: bytes) -> Span | None:
    """A Russian registration number, of an organisation (13 digits) or an entrepreneur (15)."""
    digits = b"".join(DIGIT.findall(matched))
    modulus = {13: 11, 15: 13}.get(len(digits))
    genuine = modulus and digits[:1] in (b"1", b"2", b"3", b"5") and int(digits[:-1]) % modulus % 10 == digits[-1] - 48
    return (0, len(matched)) if genuine else None


def account(matched: bytes) -> Span | None:
    """A Russian bank account together with the bank's BIK, in either order."""
    groups = [(found.start(), found.end(), found[0]) for found in GROUP.finditer(matched)]
    biks = [group for group in groups if len(group[2]) == BIK_DIGITS]
    accounts = [group for group in groups if len(group[2]) == ACCOUNT_DIGITS]
    for start, end, number in accounts:
        if any(_account_control(bik, number) for _, _, bik in biks):
            return start, end
    return None


def _account_control(bik: bytes, number: bytes) -> bool:
    """A settlement account is checked with the last three digits of the BIK, a correspondent one with two others."""
    prefix = b"0" + bik[4:6] if number.startswith(b"301") else bik[6:]
    digits = (digit - 48 for digit in prefix + number)
    return sum(digit * ACCOUNT_WEIGHTS[place % 3] for place, digit in enumerate(digits)) % 10 == 0


def oms(matched: bytes) -> Span | None:
    """The unified number of a Russian health insurance policy."""
    digits = [digit - 48 for digit in b"".join(DIGIT.findall(matched))][-OMS_DIGITS:]
    if len(digits) < OMS_DIGITS or not any(digits):
        return None
    odd = int("".join(map(str, digits[-2::-2]))) * 2
    even = "".join(map(str, digits[-3::-2]))
    control = -sum(map(int, even + str(odd))) % 10
    return (0, len(matched)) if control == digits[-1] else None


CHECKS = {"account": account, "iban": iban, "oms": oms, "ogrn": ogrn}
