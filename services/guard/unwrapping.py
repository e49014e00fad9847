"""Views of a text: as it is written, and with what is encoded in it decoded, any number of times.

Each layer costs time linear in the text, and what it leaves is hardly longer than the text it was made from.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from services.guard.encodings import ENCODINGS, Encoding
from services.guard.folding import fold, origins


class View:
    """A text as the matcher sees it."""

    is_original = True

    def __init__(self, text: str) -> None:
        self._text = text
        self.folded = fold(text)

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Where a part of `folded` lies in the original text, in characters."""
        return self._origins[start], self._origins[end - 1] + 1

    def is_decoded(self, start: int, end: int) -> bool:  # noqa: ARG002 - nothing of it was
        """Whether any of the part was encoded in the original."""
        return False

    @cached_property
    def lowered(self) -> bytes:
        """`folded` in lower case."""
        return self.folded.lower()

    @cached_property
    def _origins(self) -> Sequence[int]:
        return origins(self._text)


class Piece(NamedTuple):
    """A part of an unwrapped view, and the part of the parent that it stands for."""

    start: int
    parent_start: int
    parent_end: int
    decoded: bool


class UnwrappedView(View):
    """A view with every encoded part replaced by what it says."""

    is_original = False

    def __init__(self, parent: View, folded: bytes, pieces: list[Piece]) -> None:
        self._parent = parent
        self._pieces = pieces
        self.folded = folded

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Where a part lies in the original text; a decoded part stands for the whole of its code."""
        first, last = self._piece(start), self._piece(end - 1)
        parent_start = first.parent_start + (0 if first.decoded else start - first.start)
        parent_end = last.parent_end if last.decoded else last.parent_start + end - last.start
        return self._parent.original(parent_start, parent_end)

    def is_decoded(self, start: int, end: int) -> bool:
        """Whether any of the part was encoded in the original."""
        return any(piece.decoded or self._parent_decoded(piece) for piece in self._between(start, end))

    def _piece(self, position: int) -> Piece:
        return self._pieces[bisect_right(self._pieces, position, key=lambda piece: piece.start) - 1]

    def _between(self, start: int, end: int) -> Iterator[Piece]:
        first = bisect_right(self._pieces, start, key=lambda piece: piece.start) - 1
        for piece in self._pieces[first:]:
            if piece.start >= end:
                return
            yield piece

    def _parent_decoded(self, piece: Piece) -> bool:
        return self._parent.is_decoded(piece.parent_start, piece.parent_end)


class Sighting(NamedTuple):
    """A trigger that matched: the encoding's place in ENCODINGS, and where."""

    encoding: int
    start: int
    end: int


def unwrap(view: View, sightings: Iterable[Sighting]) -> UnwrappedView | None:
    """Undo one layer of the encodings sighted; None when nothing could be decoded."""
    folded = view.folded
    parts: list[bytes] = []
    pieces: list[Piece] = []
    length = done = 0
    for start, end, plain in _decoded(folded, sightings):
        if start < done:
            continue
        if start > done:
            pieces.append(Piece(length, done, start, False))
            length += start - done
        pieces.append(Piece(length, start, end, True))
        length += len(plain)
        parts += (folded[done:start], plain)
        done = end
    if not pieces:
        return None
    pieces.append(Piece(length, done, len(folded), False))
    return UnwrappedView(view, b"".join([*parts, folded[done:]]), pieces)


def _decoded(folded: bytes, sightings: Iterable[Sighting]) -> list[tuple[int, int, bytes]]:
    """Every token that says something, by its place."""
    found = []
    for number, start, end in sightings:
        encoding = ENCODINGS[number]
        for token in _tokens(encoding, folded, start, end):
            plain = encoding.decode(token[0])
            if plain is not None:
                found.append((token.start(), number, token.end(), plain))
    return [(start, end, plain) for start, _, end, plain in sorted(found)]


def _tokens(encoding: Encoding, folded: bytes, start: int, end: int) -> Iterator[re.Match[bytes]]:
    if not encoding.located:
        return encoding.token.finditer(folded)
    return iter([token] if (token := encoding.token.search(folded, start, end)) else [])
