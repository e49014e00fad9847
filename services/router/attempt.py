"""One call of one deployment, told to its breaker and its measures as it goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from meshkit.deadline import seconds_remaining
from meshkit.log import get_logger
from services.router.breaker import Call
from services.router.deployment import Deployment
from services.router.measures import ATTEMPTS, FIRST_TOKEN_SECONDS, OPENINGS, TOKENS_PER_SECOND
from services.router.providers.dispatch import Dispatch, enter_dispatch
from services.router.providers.provider import FailureKind, ProviderFailure
from services.router.standing import Standing
from services.router.vitals import SHORTEST_SPEECH_SECONDS, Ending

OF_OURS = frozenset({FailureKind.CREDENTIAL, FailureKind.NOT_FOUND})
"""Failures that somebody of ours has to mend."""
TIMER_SECONDS = 0.01
"""How much too early a timer may ring."""
SILENT_SECONDS = 5.0
"""Whoever has said nothing for so long is at fault, whether its caller would have waited longer or not."""

Answer = TypeVar("Answer")

log = get_logger()


@dataclass(slots=True)
class Attempt:
    """A call under way: tell it how it goes. Leaving its block before it ended says that the caller left."""

    deployment: Deployment
    standing: Standing
    call: Call
    clock: Callable[[], float]
    began: float
    first_token_at: float | None = None
    over: bool = False
    dispatch: Dispatch = field(default_factory=Dispatch)
    """Whether its request has left us."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.over:
            self.cancelled()

    def answered(self) -> None:
        """The first token came, or all vectors."""
        self.first_token_at = self.clock()
        self.standing.breaker.answered(self.call)
        FIRST_TOKEN_SECONDS.labels(self.deployment.name).observe(self.first_token_at - self.began)

    def completed(self, output_tokens: int = 0) -> None:
        """The answer came to its end; `output_tokens` is 0 when nobody said."""
        now = self.clock()
        self.standing.breaker.completed(self.call, now)
        speed = self._tokens_per_second(now, output_tokens)
        if speed is not None:
            TOKENS_PER_SECOND.labels(self.deployment.name).observe(speed)
        self._end("completed", now, tokens_per_second=speed)

    def failed(self, failure: ProviderFailure) -> None:
        """There was no first token."""
        if _ran_out(failure) and self.clock() - self.began < SILENT_SECONDS:
            self.cancelled()
            return
        if failure.kind.is_of_the_request:
            self.standing.breaker.abandoned(self.call)
            self._end(failure.kind, self.clock())
        else:
            self._fail(failure.kind, failure)
        report = log.error if failure.kind in OF_OURS else log.warning
        report(
            "provider_failed",
            deployment=self.deployment.name,
            kind=failure.kind,
            status=failure.status,
            fault=str(failure),
        )

    def broken(self, failure: ProviderFailure) -> None:
        """The answer broke off after its first token."""
        if _ran_out(failure):
            self.cancelled()
            return
        self._fail("broken", failure)
        log.warning("stream_broken", deployment=self.deployment.name, kind=failure.kind, fault=str(failure))

    def cancelled(self) -> None:
        """The caller left, or needs this answer no more."""
        self.standing.breaker.abandoned(self.call)
        self._end("cancelled", self.clock())

    def _fail(self, outcome: str, failure: ProviderFailure) -> None:
        now, breaker = self.clock(), self.standing.breaker
        openings = breaker.openings
        breaker.failed(self.call, now, failure.retry_after_seconds)
        self._end(outcome, now, failed=True)
        if breaker.openings > openings:
            OPENINGS.labels(self.deployment.name).inc()
            log.warning("breaker_opened", deployment=self.deployment.name, seconds=round(breaker.seconds_left(now), 1))

    def _end(self, outcome: str, now: float, *, failed: bool = False, tokens_per_second: float | None = None) -> None:
        self.over = True
        ATTEMPTS.labels(self.deployment.name, outcome).inc()
        waited = None if self.first_token_at is None else self.first_token_at - self.began
        self.standing.vitals.note(Ending(now, failed, waited, tokens_per_second))

    def _tokens_per_second(self, now: float, output_tokens: int) -> float | None:
        spoke = now - (self.first_token_at or now)
        return output_tokens / spoke if output_tokens and spoke >= SHORTEST_SPEECH_SECONDS else None


def caller_is_gone() -> bool:
    """Whether the caller's deadline is over: its RPC ends at this very moment."""
    seconds = seconds_remaining()
    return seconds is not None and seconds <= TIMER_SECONDS


def _ran_out(failure: ProviderFailure) -> bool:
    """Whether a call was given no more time than its caller had: that tells nothing of the deployment."""
    return failure.kind is FailureKind.TIMEOUT and caller_is_gone()


async def observed(attempt: Attempt, ask: Callable[[Deployment], Awaitable[Answer]]) -> Answer:
    """The answer to `ask`; the attempt goes on when there is one."""
    enter_dispatch(attempt.dispatch)
    try:
        answer = await ask(attempt.deployment)
    except ProviderFailure as failure:
        attempt.failed(failure)
        raise
    except BaseException:
        attempt.cancelled()
        raise
    attempt.answered()
    return answer
