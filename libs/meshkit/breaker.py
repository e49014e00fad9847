"""Decides when a dependency that failed may be asked again."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed until a failure; then admits one trial after each pause, and every pause is twice the last.

    One failure opens it: it stands before stores that answer in microseconds, and doing without costs less than a wait.
    """

    def __init__(
        self,
        *,
        first_pause_seconds: float = 0.1,
        longest_pause_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_pause = first_pause_seconds
        self._longest_pause = longest_pause_seconds
        self._clock = clock
        self._pause = 0.0
        self._retry_at = 0.0
        self._on_trial = False

    @property
    def is_open(self) -> bool:
        """Whether the last thing heard of the dependency was a failure."""
        return self._pause > 0

    @property
    def is_on_trial(self) -> bool:
        """Whether the one trial is under way."""
        return self._on_trial

    def admits(self) -> bool:
        """Whether to ask now; a True while open is the one trial, whose outcome must be told."""
        if not self.is_open:
            return True
        if self._on_trial or self._clock() < self._retry_at:
            return False
        self._on_trial = True
        return True

    def succeeded(self) -> None:
        """The dependency answered: ask it freely again."""
        self._on_trial = False
        self._pause = 0.0

    def failed(self, *, was_trial: bool) -> None:
        """The dependency failed: pause, after a trial longer than last time."""
        if self.is_open and not was_trial:
            return  # asked before the first failure: it is the same failure, seen again
        self._on_trial = False
        self._pause = min(self._pause * 2 or self._first_pause, self._longest_pause)
        self._retry_at = self._clock() + self._pause

    def abandoned(self, *, was_trial: bool) -> None:
        """The caller left before the dependency answered: nothing was learned."""
        self._on_trial = self._on_trial and not was_trial
