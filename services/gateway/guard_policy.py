"""Which version of the guard's policy is in force: cached answers are bound to it."""

from __future__ import annotations

import time
from collections.abc import Callable


class GuardPolicy:
    """The version last heard of; unknown again when nothing was heard for `max_stale_seconds`."""

    def __init__(self, max_stale_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_stale_seconds = max_stale_seconds
        self._clock = clock
        self._version = ""
        self._heard_at = 0.0

    def learn(self, version: str) -> None:
        """Take the guard's word for it; an empty version teaches nothing."""
        if version:
            self._version, self._heard_at = version, self._clock()

    def version(self) -> str:
        """The version, or "" when it is not known."""
        fresh = self._clock() - self._heard_at <= self._max_stale_seconds
        return self._version if fresh else ""
