"""Trying deployments in order until one answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from meshkit.errors import ContextTooLong, MeshError, ModelWarming, ProviderRefused, ProviderUnavailable
from meshkit.log import get_logger
from services.router.breaker import Breaker
from services.router.deployment import Deployment
from services.router.measures import ATTEMPTS, FIRST_TOKEN_SECONDS
from services.router.providers.provider import FailureKind, ProviderFailure

DEFAULT_RETRY_SECONDS = 5.0
OF_OURS = frozenset({FailureKind.CREDENTIAL, FailureKind.NOT_FOUND})
"""Failures that somebody of ours has to mend."""

Answer = TypeVar("Answer")

log = get_logger()


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


@dataclass(slots=True)
class Failover:
    """Asks one deployment after the other; remembers which ones to leave alone."""

    breakers: Mapping[str, Breaker]
    clock: Callable[[], float] = field(default=time.monotonic)

    async def first_answer(
        self, model: str, ranked: Sequence[Deployment], attempt: Callable[[Deployment], Awaitable[Answer]]
    ) -> Answered[Answer]:
        """What the first of `ranked` that can answers; `attempt` must leave nothing open when it raises.

        Raises:
            ProviderRefused, ContextTooLong: If a provider found the request itself at fault.
            ModelWarming: If every deployment is still loading its model.
            ProviderUnavailable: If none answered.
        """
        failed: list[FailedAttempt] = []
        for deployment in ranked:
            if not self.breakers[deployment.name].begin(self.clock()):
                continue
            try:
                answer = await self._measured(deployment, attempt)
            except ProviderFailure as failure:
                failed.append(FailedAttempt(deployment, failure))
                if failure.kind is FailureKind.REFUSED:
                    break
            else:
                return Answered(deployment, answer, failed)
        raise self._exhausted(model, ranked, failed)

    def completed(self, deployment: Deployment) -> None:
        """Note that the answer of `deployment` came to its end."""
        self.breakers[deployment.name].completed()
        ATTEMPTS.labels(deployment.name, "completed").inc()

    def broken(self, deployment: Deployment, failure: ProviderFailure) -> None:
        """Note that the answer of `deployment` broke off after its first token."""
        self.breakers[deployment.name].failed(self.clock(), failure.retry_after_seconds)
        ATTEMPTS.labels(deployment.name, "broken").inc()
        log.warning("stream_broken", deployment=deployment.name, kind=failure.kind, fault=str(failure))

    def cancelled(self, deployment: Deployment) -> None:
        """Note that the caller left while `deployment` was answering."""
        self.breakers[deployment.name].abandoned()
        ATTEMPTS.labels(deployment.name, "cancelled").inc()

    def seconds_until_free(self, deployment: Deployment) -> float:
        """How long `deployment` is still left alone."""
        return self.breakers[deployment.name].seconds_left(self.clock())

    async def _measured(self, deployment: Deployment, attempt: Callable[[Deployment], Awaitable[Answer]]) -> Answer:
        started = time.monotonic()
        try:
            answer = await attempt(deployment)
        except ProviderFailure as failure:
            self._note(deployment, failure)
            raise
        except BaseException:
            self.cancelled(deployment)
            raise
        self.breakers[deployment.name].answered()
        FIRST_TOKEN_SECONDS.labels(deployment.name).observe(time.monotonic() - started)
        return answer

    def _note(self, deployment: Deployment, failure: ProviderFailure) -> None:
        breaker = self.breakers[deployment.name]
        if failure.kind.is_of_the_request:
            breaker.abandoned()
        else:
            breaker.failed(self.clock(), failure.retry_after_seconds)
        ATTEMPTS.labels(deployment.name, failure.kind).inc()
        report = log.error if failure.kind in OF_OURS else log.warning
        report(
            "provider_failed",
            deployment=deployment.name,
            kind=failure.kind,
            status=failure.status,
            fault=str(failure),
        )

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
