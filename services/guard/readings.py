"""Other ways to read a whole text: backwards, every word backwards, by rot13.

Each is tried only where a telling word of an attack stands there in disguise, so that ordinary texts are read once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from services.guard.folding import fold
from services.guard.unwrapping import View

TELLING = (
    "ignore disregard forget previous instructions system prompt bypass reveal override restrictions unrestricted "
    "игнорируй игнорировать забудь предыдущие инструкции указания промпт правила ограничений системный"
)
WORDS = [fold(word).lower() for word in TELLING.split()]
LETTERS = re.compile(rb"[A-Za-z0-9\x80-\x9f\xe0-\xff]+")
ROT13 = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", b"NOPQRSTUVWXYZABCDEFGHIJKLMnopqrstuvwxyzabcdefghijklm"
)


def _turned(folded: bytes) -> bytes:
    return folded[::-1]


def _words_turned(folded: bytes) -> bytes:
    return LETTERS.sub(lambda word: word[0][::-1], folded)


def _rotated(folded: bytes) -> bytes:
    return folded.translate(ROT13)


class Reading(NamedTuple):
    """One other way to read a text; it has as many bytes as the text."""

    trigger: bytes
    """What a text that may be written so matches."""
    read: Callable[[bytes], bytes]
    mirrored: bool = False
    """Whether the last byte is read first."""


BACKWARDS = b"|".join(re.escape(word[::-1]) for word in WORDS)
READINGS = (
    Reading(BACKWARDS, _turned, mirrored=True),
    Reading(BACKWARDS, _words_turned),
    Reading(b"|".join(re.escape(_rotated(word)) for word in WORDS if word.isascii() and word.isalpha()), _rotated),
)


class ReadView(View):
    """A view read in another way."""

    is_original = False

    def __init__(self, parent: View, reading: Reading) -> None:
        self._parent = parent
        self._mirrored = reading.mirrored
        self.folded = reading.read(parent.folded)

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Where a part lies in the original text."""
        if self._mirrored:
            start, end = len(self.folded) - end, len(self.folded) - start
        return self._parent.original(start, end)

    def is_decoded(self, start: int, end: int) -> bool:  # noqa: ARG002 - all of it was
        """All of it was disguised."""
        return True
