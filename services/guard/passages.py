"""What is judged at once: a text, whose it is, and how a long one is cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

SLICE = 16_384
SLICE_OVERLAP = 512
SPACE = re.compile(r"\s")


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

    A slice ends at white space, however far that is, for a code that is cut in two can no longer be read.
    """
    start = 0
    while len(text) - start > SLICE:
        space = SPACE.search(text, start + SLICE)
        if space is None:
            break
        yield start, text[start : space.end()]
        start = _word_start(text, max(space.end() - SLICE_OVERLAP, start + 1), space.end())
    yield start, text[start:]


def _word_start(text: str, earliest: int, latest: int) -> int:
    space = SPACE.search(text, earliest, latest)
    return space.end() if space else latest
