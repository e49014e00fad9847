"""When to leave a failing deployment alone: a state machine that asks no clock, throws no dice and does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from services.router.failure_rate import FailureRate
from services.router.staged_return import StagedReturn

LONGEST_RETRY_AFTER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, for how long, and how a deployment comes back."""

    failures_to_open: int = 3
    """Failures in a row."""
    failure_percent_to_open: int = 50
    """Failed among the calls of the window, once there are `window_calls` of them."""
    window_seconds: float = 30.0
    window_calls: int = 20
    open_seconds: float = 10.0
    open_jitter: float = 0.2
    """Largest part that chance adds to an opening, so that replicas do not all come back at once."""
    successes_to_close: int = 3
    """Whole answers of probes; and of each stage of the return."""
    return_percents: tuple[int, ...] = (10, 50)
    """Share of its requests that a deployment gets back in stages, before all of them."""
    stage_seconds: float = 10.0
    """Shortest stage."""


class BreakerState(StrEnum):
    """Whether a deployment is called."""

    CLOSED = "closed"
    """It is."""
    OPEN = "open"
    """It is not, for a while."""
    HALF_OPEN = "half_open"
    """A few requests find out whether it is back."""
    RETURNING = "returning"
    """It is back, and gets its share of requests in stages."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call that a breaker let through."""

    opening: int
    """How many openings there had been."""


def _no_jitter() -> float:
    return 0.0


@dataclass(slots=True)
class Breaker:
    """Closed, open, half open, returning, closed again.

    Every call is one `begin` that gave a Call, perhaps one `answered`, then one of `completed`, `failed` and
    `abandoned`. What a call tells counts only if the breaker has not opened since it began: but a wait that a
    provider asked for always counts. Times are seconds of any one clock that never goes back.
    """

    policy: BreakerPolicy = BreakerPolicy()
    chance: Callable[[], float] = _no_jitter
    """A number from 0 to 1, another each time."""
    openings: int = 0
    open_until: float = 0.0
    """No calls before this time."""
    opened_at: float = 0.0
    failures: int = 0
    """Failures in a row."""
    failed_checks: int = 0
    """Health checks failed in a row."""
    half_open: bool = False
    """Opened, and not yet found to be back."""
    _successes: int = 0
    _probes: set[Call] = field(default_factory=set)
    _silent_probe: Call | None = None
    """The probe that waits for its first token: one caller at most waits for a provider that may be down."""
    _return: StagedReturn | None = None
    _rate: FailureRate = field(init=False)

    def __post_init__(self) -> None:
        self._rate = FailureRate(self.policy.window_seconds)

    def state(self, now: float) -> BreakerState:
        """Whether the deployment is called."""
        if now < self.open_until:
            return BreakerState.OPEN
        if self.half_open:
            return BreakerState.HALF_OPEN
        return BreakerState.RETURNING if self._return else BreakerState.CLOSED

    def share_percent(self, now: float) -> int:
        """How many of a hundred requests may go to the deployment first."""
        if now < self.open_until or self.half_open:
            return 0
        return self._return.percent if self._return else 100

    def seconds_left(self, now: float) -> float:
        """How long until the next call is allowed; 0 when it is now."""
        return max(0.0, self.open_until - now)

    def leads(self) -> bool:
        """Whether this request may go to the deployment first; each asking counts as one request of its share."""
        return self._return is None or self._return.leads()

    def begin(self, now: float) -> Call | None:
        """Let a call through, or not."""
        state = self.state(now)
        if state is BreakerState.OPEN or (state is BreakerState.HALF_OPEN and not self._wants_probe()):
            return None
        call = Call(self.openings)
        if state is BreakerState.HALF_OPEN:
            self._probes.add(call)
            self._silent_probe = call
        return call

    def answered(self, call: Call) -> None:
        """Note a first token: the next probe may begin, if one is wanted."""
        if self._silent_probe is call:
            self._silent_probe = None

    def completed(self, call: Call, now: float) -> None:
        """Count a whole answer."""
        if call.opening != self.openings:
            return
        self._forget_probe(call)
        self.failures = 0
        self._rate.count(now, failed=False)
        if self.half_open:
            self._successes += 1
            if self._successes >= self.policy.successes_to_close:
                self._close(now)
        elif self._return and self._return.completed(now):
            self._return = None

    def failed(self, call: Call, now: float, retry_after_seconds: float | None = None) -> None:
        """Count a failure; leave the deployment alone for as long as it asked, or as the policy says."""
        self._wait_until(now + (retry_after_seconds or 0.0), now)
        if call.opening != self.openings:
            return
        self._forget_probe(call)
        self.failures += 1
        self._rate.count(now, failed=True)
        if self.half_open or self.failures >= self.policy.failures_to_open or self._fails_too_often(now):
            self._open(now)

    def abandoned(self, call: Call) -> None:
        """Forget a call that told nothing of the deployment: its caller left, or the request was at fault."""
        self._forget_probe(call)

    def checked(self, *, healthy: bool, now: float) -> None:
        """Count a health check: failed ones open the breaker or keep it open, good ones only end their row."""
        self.failed_checks = 0 if healthy else self.failed_checks + 1
        if healthy:
            return
        if self.half_open:
            self._wait_until(now + self.policy.open_seconds, now)
        elif self.failed_checks >= self.policy.failures_to_open:
            self._open(now)

    def learn_opening(self, until: float, now: float) -> None:
        """Open because another router saw the deployment fail."""
        if not self.half_open:
            self._begin_opening(now)
        self._wait_until(until, now)

    def learn_wait(self, until: float, now: float) -> None:
        """Wait as long as the deployment asked another router to."""
        self._wait_until(until, now)

    def learn_return(self, opened_before: float, now: float) -> None:
        """Return because another router's probes succeeded, unless ours opened later than `opened_before`."""
        if self.half_open and self.opened_at <= opened_before:
            self._close(now)

    def _wants_probe(self) -> bool:
        return self._silent_probe is None and len(self._probes) + self._successes < self.policy.successes_to_close

    def _forget_probe(self, call: Call) -> None:
        self._probes.discard(call)
        self.answered(call)

    def _fails_too_often(self, now: float) -> bool:
        calls, failed = self._rate.counted(now)
        return calls >= self.policy.window_calls and failed * 100 >= calls * self.policy.failure_percent_to_open

    def _wait_until(self, until: float, now: float) -> None:
        """Never sooner than was promised before, never longer than is believed."""
        self.open_until = max(self.open_until, min(until, now + LONGEST_RETRY_AFTER_SECONDS))

    def _open(self, now: float) -> None:
        self._begin_opening(now)
        self._wait_until(now + self.policy.open_seconds * (1 + self.policy.open_jitter * self.chance()), now)

    def _begin_opening(self, now: float) -> None:
        self.openings += 1
        self.opened_at = now
        self.half_open = True
        self._return = None
        self._probes.clear()
        self._silent_probe = None
        self._forget_counts()

    def _close(self, now: float) -> None:
        self.half_open = False
        self._forget_counts()
        if self.policy.return_percents:
            self._return = StagedReturn(
                self.policy.return_percents, self.policy.stage_seconds, self.policy.successes_to_close, now
            )

    def _forget_counts(self) -> None:
        self.failures = self.failed_checks = self._successes = 0
        self._rate = FailureRate(self.policy.window_seconds)
