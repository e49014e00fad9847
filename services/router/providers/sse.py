"""Server-sent events, parsed as they arrive.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re

LARGEST_EVENT_BYTES = 8 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event grew past the limit without ending."""


class EventParser:
    """Turns the bytes of an event stream, cut anywhere, into the data of its events.

    Works on bytes, so a character cut in half is no special case. Comments, ids and event names are dropped.
    """

    foreign_types = frozenset({"application/json", "text/html", "application/xml", "text/xml"})
    """Content types that are certainly no event stream; some providers name none, or text/plain."""

    def __init__(self) -> None:
        self._partial = b""
        self._data: list[bytes] = []
        self._size = 0
        self._began = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of every event that `piece` completes."""
        buffer = self._partial + piece
        if not self._began and len(buffer) >= len(_BYTE_ORDER_MARK):
            buffer = buffer.removeprefix(_BYTE_ORDER_MARK)
            self._began = True
        # A carriage return at the end may be half of a CRLF.
        held = b"\r" if buffer.endswith(b"\r") else b""
        lines = _split(buffer.removesuffix(b"\r") if held else buffer)
        self._partial = lines.pop() + held
        if len(self._partial) + self._size > LARGEST_EVENT_BYTES:
            raise EventTooLarge(f"an event is larger than {LARGEST_EVENT_BYTES} bytes")
        return self._events(lines)

    def close(self) -> list[bytes]:
        """The last event of a stream that ended without the blank line after it."""
        return self._events([self._partial.removesuffix(b"\r"), b""])

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                value = line[5:].removeprefix(b" ")
                self._data.append(value)
                self._size += len(value)
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
                self._size = 0
        return events


def _split(buffer: bytes) -> list[bytes]:
    return _LINE_END.split(buffer) if b"\r" in buffer else buffer.split(b"\n")
