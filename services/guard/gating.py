"""Which phrases a text could hold at all, so that few of them need to be looked for.

Every part of a phrase begins with one of a few words. Hyperscan finds all such words at once in some ten microseconds;
only a phrase of which every part is there is worth a closer look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache

from services.guard.folding import fold
from services.guard.matching import Compile, PresenceMatcher
from services.guard.phrases import SYNTAX

MOST_HEADS = 100
QUANTIFIERS = (b"?", b"*", b"+")
COMMON_WORDS = (
    "a all an and any are as be by for from give in is it no not of on or other that the these this those to was what "
    "with write you your без в вы для если и из как на не нет о по с со так только ты у что это"
)
EVERYWHERE = frozenset(b" %s " % fold(word) for word in COMMON_WORDS.split())
"""A part that may begin with one of these and nothing more tells nothing: nearly every text has them."""
ONLY_SPACES = bytes(byte if chr(byte).isalnum() or 0x80 <= byte < 0xA0 or byte >= 0xE0 else 0x20 for byte in range(256))

Heads = tuple[set[bytes], set[bytes]]
"""Beginnings that more letters may still follow, and beginnings that need none."""


class Gate:
    """Tells of many phrases which a text may hold."""

    def __init__(self, phrases: Sequence[Sequence[bytes]], compiled: Compile) -> None:
        """Each phrase comes as its parts."""
        numbers: dict[frozenset[bytes], int] = {}
        self._needs: list[set[int]] = []
        self._by_part: dict[int, list[int]] = defaultdict(list)
        self._always: list[int] = []
        for phrase, parts in enumerate(phrases):
            telling = [found for part in parts if (found := heads(part)) and not found & EVERYWHERE]
            needed = {numbers.setdefault(part, len(numbers)) for part in telling}
            self._needs.append(needed)
            (self._by_part[max(needed)] if needed else self._always).append(phrase)
        parts_of: dict[bytes, set[int]] = defaultdict(set)
        for part, number in numbers.items():
            for head in part:
                parts_of[head].add(number)
        literals = sorted(parts_of)  # the same order at every start, so that the compiled literals are found again
        self._matcher = PresenceMatcher(literals, compiled)
        self._parts = [parts_of[literal] for literal in literals]

    def open_for(self, folded: bytes) -> list[int]:
        """The numbers of the phrases that the text may hold."""
        words = b" ".join(folded.translate(ONLY_SPACES).split())
        there: set[int] = set()
        for literal in self._matcher.present(b" %s " % words):
            there |= self._parts[literal]
        candidates = [phrase for part in there & self._by_part.keys() for phrase in self._by_part[part]]
        return self._always + [phrase for phrase in candidates if self._needs[phrase] <= there]


@cache
def heads(part: bytes) -> frozenset[bytes]:
    """Beginnings, each after a space, one of which every match of the part has; empty when nothing is known of them."""
    growing, closed = _Reader(SYNTAX.findall(part)).alternatives()
    found = closed | {head.rstrip() + b" " for head in growing}
    return frozenset() if b"" in found or b" " in found else frozenset(b" " + head for head in found)


class _Reader:
    """Reads the language of phrases just far enough to know how a match begins."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._tokens = [*tokens, b""]
        self._next = 0

    def alternatives(self) -> Heads:
        """Up to the end of the group."""
        growing, closed = self._sequence()
        while self._take(b"|"):
            more, done = self._sequence()
            growing, closed = growing | more, closed | done
        return growing, closed

    def _sequence(self) -> Heads:
        growing: set[bytes] = {b""}
        closed: set[bytes] = set()
        while (token := self._tokens[self._next]) not in (b"", b"|", b")"):
            self._next += 1
            more, done = self._element(token)
            closed |= {head + tail for head in growing for tail in done}
            longer, telling = _cut({head + tail for head in growing for tail in more})
            if len(longer) > MOST_HEADS:
                growing, longer, closed = set(), set(), closed | growing
            growing, closed = self._quantified(growing, longer, closed | telling)
        return growing, closed

    def _element(self, token: bytes) -> Heads:
        if token in (b"(", b"(?:"):
            return _group(self._inside())
        if token == b" " or token[:1].isalnum() or token >= b"\x80":
            return {token}, set()
        return set(), {b""}

    def _inside(self) -> tuple[bytes, ...]:
        """What stands up to the end of a group, its bracket taken too."""
        start, depth = self._next, 1
        while depth:
            token = self._tokens[self._next]
            depth += (token in (b"(", b"(?:")) - (token in (b")", b""))
            self._next += 1
        return tuple(self._tokens[start : self._next - 1])

    def _quantified(self, without: set[bytes], once: set[bytes], closed: set[bytes]) -> Heads:
        token = self._tokens[self._next]
        if token not in QUANTIFIERS and token[:1] != b"{":
            return once, closed
        self._next += 1
        if token == b"?":
            return without | once, closed
        if token == b"+":
            return set(), closed | once
        return set(), closed | without

    def _take(self, token: bytes) -> bool:
        if self._tokens[self._next] != token:
            return False
        self._next += 1
        return True


@cache
def _group(tokens: tuple[bytes, ...]) -> Heads:
    """How a group may begin: phrases share their packs' words, and so most of their groups."""
    return _Reader(tokens).alternatives()


def _cut(found: set[bytes]) -> Heads:
    """Beginnings that end in a telling word need not grow."""
    whole = {head for head in found if head.endswith(b" ") and head.strip()}
    telling = {head for head in whole if b" %s " % head.split()[-1] not in EVERYWHERE}
    return found - telling, telling


def windows(folded: bytes, size: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """The text in pieces that share edges, each with its place: what is shorter than `overlap` lies whole in one."""
    for start in range(0, max(1, len(folded) - overlap), size - overlap):
        yield start, folded[start : start + size]
