"""Which version of the guard's policy is in force: cached answers are bound to it."""

from __future__ import annotations

import time
from collections.abc import Callable

from meshkit.policy_version import joined, parted


class GuardPolicy:
    """The version last heard of; unknown again when nothing was heard for `max_stale_seconds`."""

    def __init__(self, max_stale_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_stale_seconds = max_stale_seconds
        self._clock = clock
        self._version = ""
        self._heard_at = 0.0

    def learn(self, version: str) -> None:
        """Take the guard's word for it, tenants' own rules aside; an empty version teaches nothing."""
        if version:
            self._version, self._heard_at = parted(version)[0], self._clock()

    def version(self, rules_version: str = "") -> str:
        """The version for a tenant with these rules of its own, or "" when it is not known."""
        fresh = self._clock() - self._heard_at <= self._max_stale_seconds
        if not self._version or not fresh:
            return ""
        return joined(self._version, rules_version)
