"""Pages of long lists: sizes and opaque tokens."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import orjson

from meshkit.errors import FieldInvalid

DEFAULT_PAGE_SIZE = 100
LARGEST_PAGE_SIZE = 1000

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the time and id of its last row."""

    time: datetime
    id: int | str


def page_size(asked: int) -> int:
    """How many rows a page holds: 100 unless told, at most 1000.

    Raises:
        FieldInvalid: If a negative number is asked for.
    """
    if asked < 0:
        raise FieldInvalid("page_size", "must not be negative")
    return min(asked or DEFAULT_PAGE_SIZE, LARGEST_PAGE_SIZE)


def position(page_token: str, listing: str, id_type: type[int] | type[str] = int) -> Position | None:
    """Where to go on from; None on the first page.

    Raises:
        FieldInvalid: If the token is not one of this very listing.
    """
    if not page_token:
        return None
    made_for, time, row_id = _read(page_token, 3)
    if made_for != listing or type(row_id) is not id_type or not str(row_id).isprintable():
        raise _not_ours()
    try:
        return Position(datetime.fromisoformat(time), row_id)
    except (ValueError, TypeError):
        raise _not_ours() from None


def token(listing: str, time: datetime, row_id: int | str) -> str:
    """A token for the page after the row with this time and id."""
    return _write([listing, time, row_id])


def place(page_token: str, listing: str) -> int | None:
    """Which number to go on from in a list that is numbered; None on the first page.

    Raises:
        FieldInvalid: If the token is not one of this very listing.
    """
    if not page_token:
        return None
    made_for, number = _read(page_token, 2)
    if made_for != listing or type(number) is not int:
        raise _not_ours()
    return number


def place_token(listing: str, number: int) -> str:
    """A token for the page after the row with this number."""
    return _write([listing, number])


def split(rows: Sequence[Row], size: int) -> tuple[Sequence[Row], Row | None]:
    """Cut `size + 1` fetched rows into a page and, when there are more, the row it ends with."""
    return rows[:size], rows[size - 1] if len(rows) > size else None


def _write(parts: list[Any]) -> str:
    return urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def _read(page_token: str, count: int) -> list[Any]:
    try:
        parts = orjson.loads(urlsafe_b64decode(page_token + "=" * (-len(page_token) % 4)))
    except ValueError:
        raise _not_ours() from None
    if not isinstance(parts, list) or len(parts) != count:
        raise _not_ours()
    return parts


def _not_ours() -> FieldInvalid:
    return FieldInvalid("page_token", "is not a token of this list: take next_page_token of its last page")
