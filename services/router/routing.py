"""Who answers: choose, try in order, stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import ProviderStreamBroken
from meshkit.identity import Identity
from services.router.answering import (
    ChatAttempts,
    EmbeddingAttempts,
    OpenAnswer,
    estimated_chat_usage,
    estimated_embedding_usage,
    generated_tokens,
)
from services.router.deltas import size_bytes
from services.router.deployment import Deployment
from services.router.experiments.shadows import Shadowed
from services.router.experiments.treatment import Use
from services.router.experiments.trials import Version
from services.router.failover import Answered, FailedAttempt, Failover
from services.router.fleet import Fleet, Roster
from services.router.latencies import FirstTokenTimes
from services.router.preferences import Hedge
from services.router.providers.provider import AnswerEvent, Ended, ProviderFailure, Vector
from services.router.ranking import Demand, Price, cheapest_first


@dataclass(frozen=True, slots=True)
class Chosen:
    """The deployment that answers, and those that did not."""

    deployment: Deployment
    failed: Sequence[FailedAttempt]
    use: Use | None = None
    """What became of the variant the request was assigned to; None when there was none."""
    outpaced_usage: chat_pb2.TokenUsage | None = None
    """What each deployment that was outpaced may have used until then: it read the prompt."""
    routes_version: str = ""
    """Of the routes file by which it was chosen."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a routed answer."""

    finish_reason: chat_pb2.FinishReason.ValueType
    usage: chat_pb2.TokenUsage
    provider_seconds: float
    """Time spent waiting for providers, failed ones included."""
    last: chat_pb2.Delta | None = None
    """What was said in the same breath, after all other pieces."""


@dataclass(frozen=True, slots=True)
class RoutedVectors:
    """Vectors in the order of the texts, what they used and who made them."""

    vectors: Sequence[Vector]
    usage: chat_pb2.TokenUsage
    chosen: Chosen


RouteEvent: TypeAlias = Chosen | chat_pb2.Delta | Finished


class Router:
    """Chooses among deployments and hands on the answer of the first that speaks."""

    def __init__(
        self,
        roster: Roster,
        prices: Mapping[str, Price],
        failover: Failover,
        first_tokens: FirstTokenTimes,
    ) -> None:
        self._roster = roster
        self._prices = prices
        self._failover = failover
        self._first_tokens = first_tokens

    async def stream_chat(self, demand: Demand) -> AsyncGenerator[RouteEvent, None]:
        """Answer a prompt: one Chosen, deltas, one Finished. Closing hangs up on the provider.

        Raises:
            MeshError: Whose type says why nobody may, can or did answer; ProviderStreamBroken after the first token.
        """
        with self._roster.held() as fleet:
            order, hedge = fleet.decider.order(demand), fleet.decider.hedge(demand)
            async with aclosing(await self._begun(fleet, demand, order, hedge)) as events:
                async for event in events:
                    yield event

    async def stream_copy(self, demand: Demand, shadow: Deployment) -> AsyncGenerator[RouteEvent, None]:
        """Have a shadow answer, and nobody else; raises as `stream_chat` does."""
        with self._roster.held() as fleet:
            async with aclosing(await self._begun(fleet, demand, [shadow], None)) as events:
                async for event in events:
                    yield event

    def treated(self, demand: Demand, asker: Identity) -> Demand:
        """The request as the variant it is assigned to has it."""
        return self._roster.fleet.trials.treated(demand, asker)

    def experiments(self) -> Mapping[str, Sequence[Version]]:
        """The experiments in force by name, each with its variants."""
        return self._roster.fleet.trials.by_experiment

    def shadows(self) -> Sequence[Shadowed]:
        """The deployments that get copies of requests."""
        return self._roster.fleet.shadows

    async def embed(self, demand: Demand) -> RoutedVectors:
        """Embed texts with the first deployment that may and can.

        Raises:
            MeshError: Whose type says why nobody may, can or did.
        """
        with self._roster.held() as fleet:
            attempts = EmbeddingAttempts(fleet.egress, demand.texts, demand.limits)
            answered = await self._failover.first_answer(demand.model, fleet.decider.order(demand), attempts.embed)
        answered.attempt.completed()
        usage = answered.answer.usage or estimated_embedding_usage(demand.texts)
        return RoutedVectors(
            answered.answer.vectors,
            usage,
            Chosen(answered.deployment, answered.failed, routes_version=fleet.routes_version),
        )

    def models(self) -> dict[str, list[Deployment]]:
        """The public models by name, each with its deployments, cheapest first."""
        served: dict[str, list[Deployment]] = {}
        answering = [each for each in self._roster.fleet.deployments if each.shadow is None]
        for deployment in cheapest_first(answering, self._prices):
            served.setdefault(deployment.serves, []).append(deployment)
        return dict(sorted(served.items()))

    async def _begun(
        self, fleet: Fleet, demand: Demand, order: Sequence[Deployment], hedge: Hedge | None
    ) -> AsyncGenerator[RouteEvent, None]:
        """The answer of the first of `order` that speaks, once it does."""
        attempts = ChatAttempts(fleet.egress, demand.prompt, demand.limits)
        opened = await self._opened(demand, order, hedge, attempts)
        self._first_tokens.note(opened.deployment, opened.answer.stream.waited_seconds)
        return self._told(demand, attempts, opened, fleet.routes_version)

    async def _told(
        self, demand: Demand, attempts: ChatAttempts, opened: Answered[OpenAnswer], routes_version: str
    ) -> AsyncGenerator[RouteEvent, None]:
        """An open answer from its beginning to its end."""
        async with opened.attempt, aclosing(opened.answer) as answer:
            yield _chosen(demand, opened, routes_version)
            said_bytes, event = 0, answer.first
            while not isinstance(event, Ended):
                said_bytes += size_bytes(event)
                yield event
                event = await _next(opened)
            opened.attempt.completed(generated_tokens(event))
            said_bytes += size_bytes(event.last) if event.last else 0
            usage = event.usage or estimated_chat_usage(demand.prompt, said_bytes)
            waited = attempts.waited_seconds + answer.stream.waited_since_first_seconds
            yield Finished(event.finish_reason, usage, waited, event.last)

    async def _opened(
        self, demand: Demand, order: Sequence[Deployment], hedge: Hedge | None, attempts: ChatAttempts
    ) -> Answered[OpenAnswer]:
        if hedge is None:
            return await self._failover.first_answer(demand.model, order, attempts.open)
        return await self._failover.quickest_answer(demand.model, order, attempts.open, hedge, OpenAnswer.aclose)


def _chosen(demand: Demand, opened: Answered[OpenAnswer], routes_version: str) -> Chosen:
    use = demand.treatment.use_of(opened.deployment.name) if demand.treatment else None
    outpaced = any(each.outpaced for each in opened.failed)
    usage = estimated_chat_usage(demand.prompt, 0) if outpaced else None
    return Chosen(opened.deployment, opened.failed, use, usage, routes_version)


async def _next(opened: Answered[OpenAnswer]) -> AnswerEvent:
    try:
        return await opened.answer.stream.next()
    except ProviderFailure as failure:
        opened.attempt.broken(failure)
        raise _broken(opened.deployment) from None


def _broken(deployment: Deployment) -> ProviderStreamBroken:
    return ProviderStreamBroken(
        f"The answer of {deployment.provider!r} broke off: ask again.",
        provider=deployment.provider,
        deployment=deployment.name,
        retry_after_seconds=1,
    )
