"""What is judged at once: a text, whose it is, and how a long one is cut."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

SLICE = 16_384
LONGEST_SLICE = 4 * SLICE
"""Characters of a slice in which there is no white space to end it."""
SLICE_OVERLAP = 512
SPACE = re.compile(r"\s")
PACKED = string.ascii_letters + string.digits + "+/_-"
"""What base64, base32 and hex are written with."""


class Speaker(Enum):
    """Whose words a text is."""

    APPLICATION = "application"
    """Its owner's: instructions."""
    CALLER = "caller"
    """The end user's, or a tool's: whoever could mean harm."""
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Passage:
    """One message's text."""

    text: str
    speaker: Speaker = Speaker.CALLER
    message_index: int = 0

    @property
    def attacks(self) -> bool:
        """Whether its author could mean harm; all others' words are only classified."""
        return self.speaker is Speaker.CALLER


def slices(text: str) -> Iterator[tuple[int, str]]:
    """The text in slices that share their edges, each with its place.

    A slice ends at white space where there is some, for of a code that is cut in two less can be read.
    """
    start = 0
    while len(text) - start > SLICE:
        space = SPACE.search(text, start + SLICE, start + LONGEST_SLICE)
        end = space.end() if space else _cut(text, start)
        if end >= len(text):
            break
        yield start, text[start:end]
        start = _word_start(text, max(end - SLICE_OVERLAP, start + 1), end) if space else end - SLICE_OVERLAP
    yield start, text[start:]


def _cut(text: str, start: int) -> int:
    """Where a slice without white space ends: of a code so that both of its parts can be read by themselves.

    Codes have groups of 2, 4 or 8 characters, and those inside codes again, of all of which the overlap is a multiple.
    """
    end = start + LONGEST_SLICE
    if end >= len(text):
        return end
    piece = text[start:end]
    packed = len(piece) - len(piece.rstrip(PACKED))
    return end - packed % SLICE_OVERLAP


def _word_start(text: str, earliest: int, latest: int) -> int:
    space = SPACE.search(text, earliest, latest)
    return space.end() if space else latest
