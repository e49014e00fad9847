"""What the classifier sees of a text: hashed letter groups and words, and which concepts meet in it.

A concept is what words of both languages are about, such as "cancel", "orders" or "persona" (`lexicon.yaml`). That two
of them meet in one sentence says more than either, whatever the language and the wording.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from services.guard.folding import fold
from services.guard.gating import ONLY_SPACES
from services.guard.matching import Compile, PresenceMatcher

FEATURES_VERSION = "3"
LEXICON = Path(__file__).parent / "lexicon.yaml"
LETTER_GROUPS = (3, 4, 5)
HASH_BITS = 14
BASE = np.uint32(257)
SPREAD = np.uint32(2654435761)
"""Knuth's multiplier: the upper bits of a product are well mixed."""
WORD = re.compile(rb"[a-z0-9\x80-\x9f\xe0-\xff]+|[^\sa-z0-9\x80-\x9f\xe0-\xff]")
SENTENCE_END = re.compile(rb"(?<=[.!?\n;:>|\]])\s*")
MOST_SENTENCES = 40
WINDOW, OVERLAP = 600, 120
"""Folded bytes that are judged at once; an attack inside a long text stands out in its own window only."""

Places = NDArray[np.int64]


class Features(NamedTuple):
    """Which features of each kind a window has."""

    letters: Places
    words: Places
    concepts: Places


def windows(length: int) -> Iterator[tuple[int, int]]:
    """Where the windows of a text of so many bytes begin and end; they share their edges."""
    for start in range(0, max(1, length - OVERLAP), WINDOW - OVERLAP):
        yield start, min(start + WINDOW, length)


class Concepts:
    """The concepts of the lexicon: single ones, pairs in one sentence, pairs in one window."""

    def __init__(self, compiled: Compile, path: Path = LEXICON) -> None:
        lexicon: dict[str, str] = yaml.safe_load(path.read_text("utf-8"))
        found: dict[bytes, set[int]] = {}
        for number, words in enumerate(lexicon.values()):
            for word in filter(None, map(str.strip, words.split("|"))):
                found.setdefault(_literal(word), set()).add(number)
        literals = sorted(found)
        self._concepts = [found[literal] for literal in literals]
        self._matcher = PresenceMatcher(literals, compiled)
        pairs = list(combinations(range(len(lexicon)), 2))
        self._in_sentence = {pair: len(lexicon) + place for place, pair in enumerate(pairs)}
        self._in_window = {pair: place + len(pairs) for pair, place in self._in_sentence.items()}
        self.size = len(lexicon) + 2 * len(pairs)
        """How many features there are."""

    def of(self, folded: bytes) -> Places:
        """The features of a folded window."""
        everywhere: set[int] = set()
        places: set[int] = set()
        for sentence in SENTENCE_END.split(folded, MOST_SENTENCES):
            here = self._met(sentence)
            everywhere |= here
            places.update(map(self._in_sentence.__getitem__, combinations(sorted(here), 2)))
        places |= everywhere
        places.update(map(self._in_window.__getitem__, combinations(sorted(everywhere), 2)))
        return np.fromiter(sorted(places), np.int64, len(places))

    def _met(self, sentence: bytes) -> set[int]:
        words = sentence.translate(ONLY_SPACES).split()
        if not words:
            return set()
        present = self._matcher.present(b" %s " % b" ".join(words))
        return set().union(*(self._concepts[literal] for literal in present))


def features(folded: bytes, concepts: Concepts) -> Features:
    """The features of one window of folded text."""
    lowered = b" %s " % folded.lower()
    return Features(_letters(lowered), _words(lowered), concepts.of(lowered))


def _literal(word: str) -> bytes:
    """How a word of the lexicon stands in a text of which only words are left."""
    words = fold(word.rstrip("$")).lower().translate(ONLY_SPACES).split()
    return b" %s%s" % (b" ".join(words), b" " if word.endswith("$") else b"")


def _letters(folded: bytes) -> Places:
    """Hashes of all groups of 3 to 5 letters, each once."""
    codes = np.frombuffer(folded, np.uint8).astype(np.uint32)
    group, hashed = codes, []
    for size in range(2, LETTER_GROUPS[-1] + 1):
        group = group[:-1] * BASE + codes[size - 1 :]
        if size in LETTER_GROUPS:
            hashed.append(((group + size * BASE**size) * SPREAD) >> np.uint32(32 - HASH_BITS))
    return _distinct(np.concatenate(hashed))


def _words(folded: bytes) -> Places:
    """Hashes of words and pairs of words, each once."""
    found = WORD.findall(folded)
    words = list(map(zlib.crc32, found))
    pairs = list(map(zlib.crc32, (b" " + word for word in found[1:]), words))
    return _distinct(np.array(words + pairs, np.uint32) >> np.uint32(32 - HASH_BITS))


def _distinct(hashed: NDArray[np.uint32]) -> Places:
    there = np.zeros(1 << HASH_BITS, np.bool_)
    there[hashed] = True
    return np.flatnonzero(there)
