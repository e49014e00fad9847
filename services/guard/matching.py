"""Hyperscan: many expressions over folded text at once, whole or as it arrives.

One thread may scan at a time: a database has one scratch space.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import hyperscan

BLOCK = hyperscan.HS_MODE_BLOCK
STREAM = hyperscan.HS_MODE_STREAM | hyperscan.HS_MODE_SOM_HORIZON_LARGE
MOST_EVENTS = 1000


class Expression(NamedTuple):
    """A regular expression over folded text."""

    source: bytes
    case_sensitive: bool = False
    """Whether ASCII case matters."""
    once: bool = False
    """Only whether it matches matters, not where: at most one event."""

    @property
    def flags(self) -> int:
        """As Hyperscan wants them."""
        flags = hyperscan.HS_FLAG_DOTALL | (0 if self.case_sensitive else hyperscan.HS_FLAG_CASELESS)
        return flags | (hyperscan.HS_FLAG_SINGLEMATCH if self.once else hyperscan.HS_FLAG_SOM_LEFTMOST)


Compile = Callable[[Sequence[Expression], int], hyperscan.Database]
"""Makes the database of expressions for one mode, or finds it where it is kept."""


class Event(NamedTuple):
    """A match: which expression, and where. One expression has one event for every possible end."""

    expression: int
    start: int
    end: int


class Matches(NamedTuple):
    """What a whole text holds."""

    events: list[Event]
    overflowed: set[int]
    """Expressions with more matches than `events` has."""


class ExpressionInvalid(ValueError):
    """An expression that Hyperscan refuses."""


class BlockMatcher:
    """Finds expressions in whole texts."""

    def __init__(self, expressions: Sequence[Expression], compiled: Compile) -> None:
        self._database = compiled(expressions, BLOCK)

    def scan(self, folded: bytes) -> Matches:
        """The matches, at most MOST_EVENTS of each expression."""
        collected = _FewOfEach()
        self._database.scan(folded, match_event_handler=collected.add)
        return Matches(collected.events, {number for number, count in collected.counts.items() if count > MOST_EVENTS})


class _FewOfEach:
    """The first events of each expression, and how many there were."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.counts: Counter[int] = Counter()

    def add(self, expression: int, start: int, end: int, _flags: int, _context: object) -> None:
        """Hyperscan's match handler."""
        self.counts[expression] += 1
        if self.counts[expression] <= MOST_EVENTS:
            self.events.append(Event(expression, start, end))


class PresenceMatcher:
    """Tells which of many literals are in a text, wherever."""

    def __init__(self, literals: Sequence[bytes], compiled: Compile) -> None:
        self._database = compiled([Expression(re.escape(literal), once=True) for literal in literals], BLOCK)
        self._found: list[int] = []

    def present(self, folded: bytes) -> list[int]:
        """The numbers of the literals that are there."""
        self._found = []
        self._database.scan(folded, match_event_handler=self._add)
        return self._found

    def _add(self, literal: int, _start: int, _end: int, _flags: int, _context: object) -> None:
        self._found.append(literal)


class StreamMatcher:
    """Finds expressions in texts that arrive in pieces."""

    def __init__(self, expressions: Sequence[Expression], compiled: Compile) -> None:
        self._database = compiled(expressions, STREAM)

    def open(self) -> OpenStream:
        """Start on a new text; close it, or its memory is lost."""
        return OpenStream(self._database)


class OpenStream:
    """One text on its way through; offsets count from its first byte."""

    def __init__(self, database: hyperscan.Database) -> None:
        self._events: list[Event] = []
        # Hyperscan keeps bare pointers to the database and the handler: both must outlive the stream.
        self._database = database
        self._handler = self._add
        self._stream: hyperscan.Stream | None = database.stream(match_event_handler=self._handler)
        self._stream.__enter__()

    def scan(self, folded: bytes) -> list[Event]:
        """Matches that end inside this piece."""
        assert self._stream is not None, "the stream is closed"
        self._stream.scan(folded, match_event_handler=self._handler)
        return self._taken()

    def close(self) -> list[Event]:
        """Matches that only the end of the text decides. Closing again does nothing."""
        if self._stream is not None:
            self._stream.close(match_event_handler=self._handler)
            self._stream = None
        return self._taken()

    def _add(self, expression: int, start: int, end: int, _flags: int, _context: object) -> None:
        self._events.append(Event(expression, start, end))

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def compile_database(expressions: Sequence[Expression], mode: int) -> hyperscan.Database:
    """Compile for one mode.

    Raises:
        ExpressionInvalid: If Hyperscan refuses; its own words are in the message.
    """
    database = hyperscan.Database(mode=mode)
    try:
        database.compile(
            expressions=[expression.source for expression in expressions],
            ids=list(range(len(expressions))),
            flags=[expression.flags for expression in expressions],
        )
    except hyperscan.error as error:
        raise ExpressionInvalid(str(error)) from error
    return database


def is_longer_than(expression: Expression, length: int) -> bool:
    """Whether a match of more than `length` bytes is possible.

    Hyperscan knows, and says so by refusing a least length that no match can have.
    """
    longer = hyperscan.ExpressionExt(  # type: ignore[attr-defined] # the stub file forgot it
        flags=hyperscan.HS_EXT_FLAG_MIN_LENGTH, min_length=length + 1
    )
    try:
        hyperscan.Database(mode=BLOCK).compile(
            expressions=[expression.source], ids=[0], flags=[expression.flags], ext=[longer]
        )
    except hyperscan.error as error:
        if "min_length" not in str(error):
            raise ExpressionInvalid(str(error)) from error
        return False
    return True
