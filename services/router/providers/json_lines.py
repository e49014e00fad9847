"""JSON values, one a line, parsed as they arrive."""

from __future__ import annotations

from services.router.providers.sse import LARGEST_EVENT_BYTES, EventTooLarge


class LineParser:
    """Turns the bytes of a stream of lines, cut anywhere, into its lines; empty ones are dropped."""

    foreign_types = frozenset({"text/html", "application/xml", "text/xml"})
    """Content types that are certainly no stream of JSON."""

    def __init__(self) -> None:
        self._partial = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Every line that `piece` completes."""
        lines = (self._partial + piece).split(b"\n")
        self._partial = lines.pop()
        if len(self._partial) > LARGEST_EVENT_BYTES:
            raise EventTooLarge(f"a line is larger than {LARGEST_EVENT_BYTES} bytes")
        return [line for line in lines if line.strip()]

    def close(self) -> list[bytes]:
        """The last line, if nothing ended it."""
        rest, self._partial = self._partial, b""
        return [rest] if rest.strip() else []
