"""When to leave a failing deployment alone: a state machine that asks no clock and does no I/O."""

from __future__ import annotations

from dataclasses import dataclass

FAILURES_TO_OPEN = 3
OPEN_SECONDS = 10.0
LONGEST_RETRY_AFTER_SECONDS = 300.0


@dataclass(slots=True)
class Breaker:
    """Closed while a deployment answers; open for a while after failures in a row; then one call finds out.

    Every attempt is one `begin` that returned True, then one of `answered`, `failed` or `abandoned`.
    Times are seconds of any one clock that never goes back.
    """

    failures_to_open: int = FAILURES_TO_OPEN
    open_seconds: float = OPEN_SECONDS
    failures: int = 0
    """Failures in a row."""
    open_until: float = 0.0
    """No calls before this time."""
    probing: bool = False
    """One call is finding out whether the deployment is back."""

    def begin(self, now: float) -> bool:
        """Whether to call; after an opening only one caller may, until it is known how that went."""
        if self.seconds_left(now) > 0 or self.probing:
            return False
        self.probing = self.open_until > 0
        return True

    def answered(self) -> None:
        """The deployment spoke: close, if this call was to find that out; one from before the opening proves nothing.

        Failures in a row are forgotten only when an answer is `completed`.
        """
        if self.probing:
            self.probing = False
            self.open_until = 0.0
            self.failures = min(self.failures, self.failures_to_open - 1)

    def completed(self) -> None:
        """An answer came to its end."""
        self.failures = 0

    def failed(self, now: float, retry_after_seconds: float | None = None) -> None:
        """Count a failure; open after enough of them, or at once when the provider said for how long.

        An opening is never cut short by a later, shorter one.
        """
        self.failures += 1
        pause = self.open_seconds if self.probing or self.failures >= self.failures_to_open else 0.0
        pause = max(pause, min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS))
        self.probing = False
        if pause:
            self.open_until = max(self.open_until, now + pause)

    def abandoned(self) -> None:
        """The attempt ended without telling anything about the deployment: its caller left, or the request was bad."""
        self.probing = False

    def seconds_left(self, now: float) -> float:
        """How long until the next call is allowed; 0 when it is now."""
        return max(0.0, self.open_until - now)
