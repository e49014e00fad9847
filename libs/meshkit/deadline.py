"""Deadlines that shrink from hop to hop."""

from __future__ import annotations

import time
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def enter_deadline(seconds_remaining: float | None) -> None:
    """Remember how long the caller of the RPC being served will still wait; None means for ever."""
    _deadline.set(None if seconds_remaining is None else time.monotonic() + seconds_remaining)


def seconds_remaining() -> float | None:
    """How long the caller will still wait, at least 0; None when it set no deadline."""
    deadline = _deadline.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def time_left(at_most: float) -> float:
    """Timeout in seconds for an outgoing call: `at_most`, or less when the caller waits less."""
    remaining = seconds_remaining()
    return at_most if remaining is None else min(at_most, remaining)
