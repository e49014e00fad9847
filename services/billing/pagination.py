"""Pages of long lists: sizes and opaque tokens."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

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
    try:
        made_for, time, row_id = orjson.loads(urlsafe_b64decode(page_token + "=" * (-len(page_token) % 4)))
        if made_for != listing or type(row_id) is not id_type or not str(row_id).isprintable():
            raise ValueError(made_for)
        return Position(datetime.fromisoformat(time), row_id)
    except (ValueError, TypeError):
        raise FieldInvalid("page_token", "is not a token of this list: take next_page_token of its last page") from None


def token(listing: str, time: datetime, row_id: int | str) -> str:
    """A token for the page after the row with this time and id."""
    return urlsafe_b64encode(orjson.dumps([listing, time, row_id])).decode().rstrip("=")


def split(rows: Sequence[Row], size: int) -> tuple[Sequence[Row], Row | None]:
    """Cut `size + 1` fetched rows into a page and, when there are more, the row it ends with."""
    return rows[:size], rows[size - 1] if len(rows) > size else None
