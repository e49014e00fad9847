"""What a caller says about the cache for one request, in headers or in the body."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from llmmesh.gateway.v1 import gateway_pb2
from meshkit.errors import FieldInvalid

LONGEST_TTL_SECONDS = 30 * 24 * 3600
LONGEST_SECONDS = 10_000_000_000
"""Any longer time is as good as this one (RFC 9111 §1.2.2), and no other fits where times are added."""
FASTEST_PACE = 10_000.0
"""Pieces a second."""
LONGEST_ECHO = 100
"""Characters of a caller's own words that an error repeats."""


@dataclass(frozen=True, slots=True)
class CacheControl:
    """How the cache may be used; the defaults are whatever the tenant's policy allows."""

    reads: bool = True
    writes: bool = True
    semantic: bool = True
    max_age_seconds: float | None = None
    """Answers from the cache are no older."""
    ttl_seconds: float | None = None
    """How long the answer is kept."""
    pieces_per_second: float | None = None
    """Pace at which a cached answer is streamed in its first pieces; 0 is at once, None is in one piece."""

    def within(self, other: CacheControl) -> CacheControl:
        """The stricter of both; of two times to live and of two paces this one's."""
        ages = [age for age in (self.max_age_seconds, other.max_age_seconds) if age is not None]
        return CacheControl(
            reads=self.reads and other.reads,
            writes=self.writes and other.writes,
            semantic=self.semantic and other.semantic,
            max_age_seconds=min(ages, default=None),
            ttl_seconds=other.ttl_seconds if self.ttl_seconds is None else self.ttl_seconds,
            pieces_per_second=other.pieces_per_second if self.pieces_per_second is None else self.pieces_per_second,
        )


AS_ALLOWED = CacheControl()
BYPASS = CacheControl(reads=False, writes=False)


def control_in_headers(metadata: Iterable[tuple[str, str | bytes]] | None) -> CacheControl:
    """What the headers say. Raises FieldInvalid naming a header that cannot be understood."""
    control = AS_ALLOWED
    for name, value in metadata or ():
        read = _HEADERS.get(name)
        if read is not None and isinstance(value, str):
            control = control.within(read(value.strip().lower()))
    return control


def control_in_message(mode: gateway_pb2.CacheMode.ValueType, message: gateway_pb2.CacheControl) -> CacheControl:
    """What a typed request says. Raises FieldInvalid naming the field at fault."""
    if mode == gateway_pb2.CACHE_MODE_BYPASS:
        return BYPASS
    return CacheControl(
        reads=not message.no_cache,
        writes=not message.no_store,
        semantic=not message.exact_only,
        max_age_seconds=_duration(message, "max_age"),
        ttl_seconds=checked_ttl("cache_control.ttl", _duration(message, "ttl")),
        pieces_per_second=checked_pace(
            "cache_control.pieces_per_second",
            message.pieces_per_second if message.HasField("pieces_per_second") else None,
        ),
    )


def checked_ttl(field: str, seconds: float | None) -> float | None:
    """A time to live. Raises FieldInvalid when it is out of range."""
    if seconds is not None and not 0 < seconds <= LONGEST_TTL_SECONDS:
        raise FieldInvalid(field, f"must be more than 0 and at most {LONGEST_TTL_SECONDS} seconds")
    return seconds


def checked_pace(field: str, pieces_per_second: float | None) -> float | None:
    """A pace of replay. Raises FieldInvalid when it is out of range."""
    if pieces_per_second is not None and not 0 <= pieces_per_second <= FASTEST_PACE:
        raise FieldInvalid(field, f"must be from 0 to {FASTEST_PACE:g} pieces a second")
    return pieces_per_second


def duration(seconds: float | None) -> Duration | None:
    """Seconds as a message, at most `LONGEST_SECONDS`."""
    if seconds is None:
        return None
    message = Duration()
    message.FromTimedelta(timedelta(seconds=min(seconds, LONGEST_SECONDS)))
    return message


def _duration(message: gateway_pb2.CacheControl, field: str) -> float | None:
    if not message.HasField(field):  # type: ignore[arg-type] # named by the callers above
        return None
    seconds: float = getattr(message, field).ToNanoseconds() / 1e9
    if seconds < 0:
        raise FieldInvalid(f"cache_control.{field}", "must not be negative")
    return seconds


def _directives(value: str) -> CacheControl:
    """RFC 9111 §5.2.1; directives that mean nothing here are ignored, as it asks."""
    control = AS_ALLOWED
    for directive in value.split(","):
        name, _, argument = directive.strip().partition("=")
        if name == "no-cache":
            control = control.within(CacheControl(reads=False))
        elif name == "no-store":
            control = control.within(CacheControl(writes=False))
        elif name == "max-age":
            control = control.within(CacheControl(max_age_seconds=_whole_seconds("cache-control", argument.strip('"'))))
    return control


def _mode(value: str) -> CacheControl:
    if value != "bypass":
        raise FieldInvalid("x-llmmesh-cache", f"{value[:LONGEST_ECHO]!r} is not known: only bypass is")
    return BYPASS


def _ttl(value: str) -> CacheControl:
    seconds = _whole_seconds("x-llmmesh-cache-ttl", value)
    return CacheControl(ttl_seconds=checked_ttl("x-llmmesh-cache-ttl", seconds))


def _semantic(value: str) -> CacheControl:
    if value not in ("on", "off"):
        raise FieldInvalid("x-llmmesh-cache-semantic", "must be on or off")
    return CacheControl(semantic=value == "on")


def _pace(value: str) -> CacheControl:
    try:
        pieces_per_second = float(value)
    except ValueError:
        raise FieldInvalid("x-llmmesh-cache-pace", "must be a number of pieces a second, or 0 for at once") from None
    return CacheControl(pieces_per_second=checked_pace("x-llmmesh-cache-pace", pieces_per_second))


def _whole_seconds(field: str, text: str) -> float:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(10**12))):
        raise FieldInvalid(field, f"must give whole seconds, not {text[:LONGEST_ECHO]!r}")
    return float(text)


_HEADERS: dict[str, Callable[[str], CacheControl]] = {
    "cache-control": _directives,
    "x-llmmesh-cache": _mode,
    "x-llmmesh-cache-ttl": _ttl,
    "x-llmmesh-cache-semantic": _semantic,
    "x-llmmesh-cache-pace": _pace,
}
