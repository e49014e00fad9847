"""What a request's fields may hold; each check names the field."""

from __future__ import annotations

import re

from meshkit.errors import FieldInvalid
from services.billing.money import MOST_MICROS

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,61}[a-z0-9]")
_CURRENCY = re.compile(r"[A-Z]{3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_id(field: str, value: str) -> str:
    """The id of something people name: a tenant, a team, a budget."""
    if not _ID.fullmatch(value):
        raise FieldInvalid(
            field,
            "must be 2 to 63 lower-case letters, digits and dashes, and begin and end with a letter or digit",
        )
    return value


def check_text(field: str, value: str, *, required: bool = True, longest: int = 200) -> str:
    """A name or id: printable, not too long and, unless told otherwise, not empty."""
    if required and not value:
        raise FieldInvalid(field, "must not be empty")
    if len(value) > longest:
        raise FieldInvalid(field, f"must not be longer than {longest} characters")
    if not value.isprintable():
        raise FieldInvalid(field, "must not hold control characters")
    return value


def check_currency(field: str, value: str) -> str:
    """An ISO 4217 code."""
    if not _CURRENCY.fullmatch(value):
        raise FieldInvalid(field, "must be three capital letters (ISO 4217), such as RUB")
    return value


def check_micros(field: str, value: int) -> int:
    """An amount of money."""
    if not 0 <= value <= MOST_MICROS:
        raise FieldInvalid(field, f"must be between 0 and {MOST_MICROS} micro-units")
    return value


def check_count(field: str, value: int) -> int:
    """A number of tokens."""
    if value < 0:
        raise FieldInvalid(field, "must not be negative")
    return value


def check_between(field: str, value: int, least: int, most: int) -> int:
    """A number within bounds."""
    if not least <= value <= most:
        raise FieldInvalid(field, f"must be between {least} and {most}")
    return value


def check_sha256(field: str, value: str) -> str:
    """A SHA-256 in hex, or nothing."""
    if value and not _SHA256.fullmatch(value):
        raise FieldInvalid(field, "must be 64 lower-case hexadecimal digits")
    return value


def check_listed(field: str, value: str, allowed: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in allowed:
        raise FieldInvalid(field, f"must be one of: {', '.join(allowed)}")
    return value


def check_number_of(field: str, count: int, *, most: int, least: int = 0) -> None:
    """How many items a list may have."""
    if not least <= count <= most:
        raise FieldInvalid(field, f"must hold {least} to {most} items")
