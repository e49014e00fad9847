"""Trying deployments in order until one answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from meshkit.details import LONGEST_VALUE
from meshkit.errors import ContextTooLong, MeshError, ModelWarming, ProviderRefused, ProviderUnavailable
from services.router.attempt import Attempt, caller_is_gone, observed
from services.router.deployment import Deployment
from services.router.hedging import Race
from services.router.preferences import Hedge
from services.router.providers.provider import FailureKind, ProviderFailure
from services.router.standing import Standing

DEFAULT_RETRY_SECONDS = 5.0
LEAST_CALLS_FOR_P95 = 20

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A deployment that did not answer."""

    deployment: Deployment
    failure: ProviderFailure

    @property
    def outpaced(self) -> bool:
        """Whether it was at work when another spoke first, and may have to be paid for that."""
        return self.failure.kind is FailureKind.OUTPACED


class NobodyAnswered(Exception):
    """The cause of what a caller is told: every deployment that was asked, and how it failed."""

    def __init__(self, failed: Sequence[FailedAttempt]) -> None:
        super().__init__(f"{len(failed)} deployments did not answer")
        self.failed = failed


def failures_of(error: MeshError) -> Sequence[FailedAttempt]:
    """Who did not answer, if that is why a request failed."""
    return error.__cause__.failed if isinstance(error.__cause__, NobodyAnswered) else ()


@dataclass(frozen=True, slots=True)
class Answered(Generic[Answer]):
    """The first answer, who gave it, and who was asked before."""

    deployment: Deployment
    answer: Answer
    failed: Sequence[FailedAttempt]
    attempt: Attempt
    """To be told how the answer ended."""


@dataclass(slots=True)
class Failover:
    """Asks one deployment after the other; remembers which ones to leave alone."""

    standings: Mapping[str, Standing]
    clock: Callable[[], float] = field(default=time.monotonic)

    async def first_answer(
        self, model: str, ranked: Sequence[Deployment], ask: Callable[[Deployment], Awaitable[Answer]]
    ) -> Answered[Answer]:
        """What the first of `ranked` that can answers; `ask` must leave nothing open when it raises.

        Raises:
            ProviderRefused, ContextTooLong: If a provider found the request itself at fault.
            ModelWarming: If every deployment is still loading its model.
            ProviderUnavailable: If none answered.
        """
        failed: list[FailedAttempt] = []
        for attempt in self._attempts(ranked):
            try:
                answer = await observed(attempt, ask)
            except ProviderFailure as failure:
                failed.append(FailedAttempt(attempt.deployment, failure))
                if failure.kind is FailureKind.REFUSED or caller_is_gone():
                    break
            else:
                return Answered(attempt.deployment, answer, failed, attempt)
        raise self._exhausted(model, ranked, failed) from NobodyAnswered(failed)

    async def quickest_answer(
        self,
        model: str,
        ranked: Sequence[Deployment],
        ask: Callable[[Deployment], Awaitable[Answer]],
        hedge: Hedge,
        discard: Callable[[Answer], Awaitable[None]],
    ) -> Answered[Answer]:
        """The same, but a second one is asked beside a silent first; the answer not needed goes to `discard`.

        Raises:
            MeshError: As `first_answer` does.
        """
        race = Race(self._attempts(ranked), ask, lambda attempt: self._patience(attempt, hedge), discard)
        won = await race.winner()
        failed = [FailedAttempt(attempt.deployment, failure) for attempt, failure in race.failed]
        if won is None:
            raise self._exhausted(model, ranked, failed) from NobodyAnswered(failed)
        attempt, answer = won
        return Answered(attempt.deployment, answer, failed, attempt)

    def seconds_until_free(self, deployment: Deployment) -> float:
        """How long `deployment` is still left alone."""
        return self.standings[deployment.name].breaker.seconds_left(self.clock())

    def _with_returning_behind(self, ranked: Sequence[Deployment]) -> list[Deployment]:
        """The same order, but those that have had their share of first calls stand behind, to fall back on."""
        return sorted(ranked, key=lambda deployment: not self.standings[deployment.name].breaker.leads())

    def _attempts(self, ranked: Sequence[Deployment]) -> Iterator[Attempt]:
        """A call of each that may be called when its turn comes."""
        for deployment in self._with_returning_behind(ranked):
            standing, now = self.standings[deployment.name], self.clock()
            call = standing.breaker.begin(now)
            if call is not None:
                yield Attempt(deployment, standing, call, self.clock, now)

    def _patience(self, attempt: Attempt, hedge: Hedge) -> float | None:
        """How long a deployment may keep silent: as the routes say, else what is slow for it, if that is known."""
        if hedge.after_seconds is not None:
            return hedge.after_seconds
        figures = attempt.standing.vitals.figures(self.clock())
        return figures.first_token_p95_seconds if figures.recent >= LEAST_CALLS_FOR_P95 else None

    def _exhausted(self, model: str, ranked: Sequence[Deployment], failed: Sequence[FailedAttempt]) -> MeshError:
        """What to tell the caller when nobody answered, and the audit log of who was asked."""
        error = self._failure(model, ranked, failed)
        told = " ".join(f"{each.deployment.name}={each.failure.kind.reason}" for each in failed)
        error.metadata["attempts"] = told if len(told) <= LONGEST_VALUE else told[:LONGEST_VALUE].rpartition(" ")[0]
        return error

    def _failure(self, model: str, ranked: Sequence[Deployment], failed: Sequence[FailedAttempt]) -> MeshError:
        kinds = {attempt.failure.kind for attempt in failed}
        if FailureKind.REFUSED in kinds or kinds == {FailureKind.NOT_FOUND}:
            return _refused(failed[-1])
        if kinds == {FailureKind.TOO_LONG}:
            return _too_long(model, failed[-1])
        retry_after = self._retry_after(ranked, failed)
        if kinds == {FailureKind.WARMING} and len(failed) == len(ranked):
            text = f"{model!r} is still loading: retry in {retry_after:.0f} s."
            return ModelWarming(text, retry_after_seconds=retry_after, model=model)
        said = {attempt.deployment.name: attempt.failure.kind.reason for attempt in failed}
        told = "; ".join(f"{each.name}: {said.get(each.name, 'failed lately, left alone')}" for each in ranked)
        return ProviderUnavailable(
            f"No deployment of {model!r} answered ({told}): retry in {retry_after:.0f} s.",
            retry_after_seconds=retry_after,
            model=model,
        )

    def _retry_after(self, ranked: Sequence[Deployment], failed: Sequence[FailedAttempt]) -> float:
        """Seconds until the first of them may be able to answer; at least 1."""
        asked = {attempt.deployment.name: attempt.failure.retry_after_seconds for attempt in failed}
        waits = (
            asked.get(deployment.name) or self.seconds_until_free(deployment) or DEFAULT_RETRY_SECONDS
            for deployment in ranked
        )
        return max(1.0, min(waits))


def _refused(attempt: FailedAttempt) -> ProviderRefused:
    provider, failure = attempt.deployment.provider, attempt.failure
    named = f" ({failure.public})" if failure.public else ""
    return ProviderRefused(
        f"The provider {provider!r} refused the request with status {failure.status}{named}: "
        "check its parameters, then retry.",
        provider=provider,
        status=failure.status,
    )


def _too_long(model: str, attempt: FailedAttempt) -> ContextTooLong:
    limit = attempt.deployment.context_tokens
    return ContextTooLong(
        f"The prompt does not fit {model!r}, which holds {limit} tokens: shorten the messages or lower max_tokens.",
        model=model,
        limit=str(limit),
    )
