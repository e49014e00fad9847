"""Trying deployments in order until one answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from meshkit.errors import ContextTooLong, MeshError, ModelWarming, ProviderRefused, ProviderUnavailable
from services.router.attempt import Attempt
from services.router.deployment import Deployment
from services.router.providers.provider import FailureKind, ProviderFailure
from services.router.standing import Standing

DEFAULT_RETRY_SECONDS = 5.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A deployment that did not answer."""

    deployment: Deployment
    failure: ProviderFailure


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
        for deployment in self._with_returning_behind(ranked):
            attempt = self._begin(deployment)
            if attempt is None:
                continue
            try:
                answer = await _observed(attempt, ask)
            except ProviderFailure as failure:
                failed.append(FailedAttempt(deployment, failure))
                if failure.kind is FailureKind.REFUSED:
                    break
            else:
                return Answered(deployment, answer, failed, attempt)
        raise self._exhausted(model, ranked, failed)

    def seconds_until_free(self, deployment: Deployment) -> float:
        """How long `deployment` is still left alone."""
        return self.standings[deployment.name].breaker.seconds_left(self.clock())

    def _with_returning_behind(self, ranked: Sequence[Deployment]) -> list[Deployment]:
        """The same order, but those that have had their share of first calls stand behind, to fall back on."""
        return sorted(ranked, key=lambda deployment: not self.standings[deployment.name].breaker.leads())

    def _begin(self, deployment: Deployment) -> Attempt | None:
        standing, now = self.standings[deployment.name], self.clock()
        call = standing.breaker.begin(now)
        return Attempt(deployment, standing, call, self.clock, now) if call else None

    def _exhausted(self, model: str, ranked: Sequence[Deployment], failed: Sequence[FailedAttempt]) -> MeshError:
        """What to tell the caller when nobody answered."""
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


async def _observed(attempt: Attempt, ask: Callable[[Deployment], Awaitable[Answer]]) -> Answer:
    """The answer to `ask`; the attempt goes on when there is one."""
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
