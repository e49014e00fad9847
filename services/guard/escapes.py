"""JSON's line breaks and tabs in an answer, read as the white space that they stand for, byte for byte.

To a rule that speaks of words the letter of such an escape is otherwise the first one of the word behind it.
"""

from __future__ import annotations

import re

ESCAPE = re.compile(rb"\\[bfnrt]")


class Escapes:
    """Reads the folded text of one answer, which arrives in pieces."""

    def __init__(self) -> None:
        self._waiting = b""

    def read(self, folded: bytes, *, last: bool) -> bytes:
        """The next bytes; a backslash at the end waits for what follows it, unless nothing does."""
        text = self._waiting + folded
        known = len(text) - (text.endswith(b"\\") and not last)
        self._waiting = text[known:]
        return ESCAPE.sub(_white_space, text[:known])


def without_halves(written: bytes, start: int, end: int) -> tuple[int, int]:
    """A match in what was read without the halves of escapes at its edges; `written` is the text as it stands."""
    return start + _splits(written, start), end - _splits(written, end)


def _splits(written: bytes, place: int) -> bool:
    return place > 0 and ESCAPE.match(written, place - 1) is not None


def _white_space(escape: re.Match[bytes]) -> bytes:
    return b" \n" if escape[0] == rb"\n" else b"  "
