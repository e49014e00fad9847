"""Views of a text: as it is written, and with what is encoded in it decoded, any number of times.

Each layer costs time linear in the text, and what it leaves is hardly longer than the text it was made from.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
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
        """Whether any of the part was encoded or disguised in the original."""
        return False

    def depth(self, start: int, end: int) -> int:  # noqa: ARG002 - nothing was
        """How many codes lie one in another in the part, at most."""
        return 0

    @cached_property
    def lowered(self) -> bytes:
        """`folded` in lower case."""
        return self.folded.lower()

    @cached_property
    def _origins(self) -> Sequence[int]:
        return origins(self._text)


class Piece(NamedTuple):
    """A part of an unwrapped view, and the part of the parent that it stands for.

    Where nothing hidden was decoded both are as long. `depth` counts the codes that were one in another here; 0 where
    nothing was decoded in this layer.
    """

    start: int
    parent_start: int
    parent_end: int
    decoded: bool
    depth: int


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
        """Whether any of the part was encoded or disguised in the original."""
        return any(
            piece.decoded or self._parent.is_decoded(piece.parent_start, piece.parent_end)
            for piece in self._between(start, end)
        )

    def depth(self, start: int, end: int) -> int:
        """How many codes lie one in another in the part, at most."""
        return max((piece.depth for piece in self._between(start, end)), default=0)

    def _piece(self, position: int) -> Piece:
        return self._pieces[bisect_right(self._pieces, position, key=lambda piece: piece.start) - 1]

    def _between(self, start: int, end: int) -> list[Piece]:
        first = bisect_right(self._pieces, start, key=lambda piece: piece.start) - 1
        last = bisect_left(self._pieces, max(end, start + 1), key=lambda piece: piece.start)
        return self._pieces[first:last]


class Sighting(NamedTuple):
    """An encoding that a text seems to hold: its place in ENCODINGS, and where, when that is known."""

    encoding: int
    place: tuple[int, int] | None


def unwrap(view: View, sightings: Iterable[Sighting]) -> UnwrappedView | None:
    """Undo one layer of the encodings sighted; None when nothing could be decoded."""
    folded = view.folded
    parts: list[bytes] = []
    pieces: list[Piece] = []
    length = done = 0
    for start, end, encoding, plain in _decoded(folded, sightings):
        if start < done:
            continue
        if start > done:
            pieces.append(Piece(length, done, start, decoded=False, depth=0))
            length += start - done
        depth = encoding.layers and encoding.layers + view.depth(start, end)
        pieces.append(Piece(length, start, end, encoding.hides, depth))
        length += len(plain)
        parts += (folded[done:start], plain)
        done = end
    if not pieces:
        return None
    pieces.append(Piece(length, done, len(folded), decoded=False, depth=0))
    return UnwrappedView(view, b"".join([*parts, folded[done:]]), pieces)


def _decoded(folded: bytes, sightings: Iterable[Sighting]) -> list[tuple[int, int, Encoding, bytes]]:
    """Every token that says something, by its place."""
    found = []
    for number, place in sightings:
        encoding = ENCODINGS[number]
        for token in _tokens(encoding, folded, place):
            plain = encoding.decode(token[0])
            if plain is not None and plain != token[0]:
                found.append((token.start(), number, token.end(), plain))
    return [(start, end, ENCODINGS[number], plain) for start, number, end, plain in sorted(found)]


def _tokens(encoding: Encoding, folded: bytes, place: tuple[int, int] | None) -> Iterator[re.Match[bytes]]:
    if place is None:
        return encoding.token.finditer(folded)
    start, end = place
    return iter([token] if (token := encoding.token.search(folded, start, end)) else [])
