"""Who answers: choose, try in order, stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid, ModelNotFound, ProviderStreamBroken
from services.router.answering import (
    ChatAttempts,
    EmbeddingAttempts,
    OpenAnswer,
    estimated_chat_usage,
    estimated_embedding_usage,
)
from services.router.constraints import Limits, eligible
from services.router.deltas import size_bytes
from services.router.deployment import Deployment
from services.router.egress import Egress
from services.router.failover import Answered, FailedAttempt, Failover
from services.router.needs import Needs, chat_needs, embedding_needs
from services.router.providers.provider import AnswerEvent, Condition, Ended, Health, ProviderFailure, Vector
from services.router.ranking import Price, cheapest_first


@dataclass(frozen=True, slots=True)
class Chosen:
    """The deployment that answers, and those that did not."""

    deployment: Deployment
    failed: Sequence[FailedAttempt]


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a routed answer."""

    finish_reason: chat_pb2.FinishReason.ValueType
    usage: chat_pb2.TokenUsage
    provider_seconds: float
    """Time spent waiting for providers, failed ones included."""


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
        deployments: Sequence[Deployment],
        egress: Egress,
        prices: Mapping[str, Price],
        failover: Failover,
        coalesce_seconds: float,
    ) -> None:
        self._deployments = deployments
        self._egress = egress
        self._prices = prices
        self._failover = failover
        self._coalesce_seconds = coalesce_seconds

    async def stream_chat(self, prompt: chat_pb2.ChatPrompt, limits: Limits) -> AsyncGenerator[RouteEvent, None]:
        """Answer a prompt: one Chosen, deltas, one Finished. Closing hangs up on the provider.

        Raises:
            MeshError: Whose type says why nobody may, can or did answer; ProviderStreamBroken after the first token.
        """
        needs = chat_needs(prompt)
        ranked = self._ranked(prompt.model, limits, needs, embeds=False)
        attempts = ChatAttempts(self._egress, prompt, limits)
        opened = await self._failover.first_answer(prompt.model, ranked, attempts.open)
        async with aclosing(opened.answer) as answer:
            yield Chosen(opened.deployment, opened.failed)
            said_bytes = 0
            async with aclosing(self._noted(opened)) as events:
                async for event in events:
                    if isinstance(event, Ended):
                        usage = event.usage or estimated_chat_usage(prompt, said_bytes)
                        waited = attempts.waited_seconds + answer.stream.waited_seconds
                        yield Finished(event.finish_reason, usage, waited)
                    else:
                        said_bytes += size_bytes(event)
                        yield event

    async def embed(self, model: str, texts: Sequence[str], limits: Limits) -> RoutedVectors:
        """Embed texts with the cheapest deployment that may and can.

        Raises:
            MeshError: Whose type says why nobody may, can or did.
        """
        needs = embedding_needs(texts)
        ranked = self._ranked(model, limits, needs, embeds=True)
        attempts = EmbeddingAttempts(self._egress, texts, limits)
        answered = await self._failover.first_answer(model, ranked, attempts.embed)
        self._failover.completed(answered.deployment)
        usage = answered.answer.usage or estimated_embedding_usage(texts)
        return RoutedVectors(answered.answer.vectors, usage, Chosen(answered.deployment, answered.failed))

    def models(self) -> dict[str, list[Deployment]]:
        """The public models by name, each with its deployments, cheapest first."""
        served: dict[str, list[Deployment]] = {}
        for deployment in cheapest_first(self._deployments, self._prices):
            served.setdefault(deployment.serves, []).append(deployment)
        return dict(sorted(served.items()))

    async def conditions(self) -> list[tuple[Deployment, Condition]]:
        """The state of every deployment, by name."""
        deployments = sorted(self._deployments, key=lambda deployment: deployment.name)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._condition(deployment)) for deployment in deployments]
        return [(deployment, task.result()) for deployment, task in zip(deployments, asked, strict=True)]

    def _ranked(self, model: str, limits: Limits, needs: Needs, *, embeds: bool) -> list[Deployment]:
        """Who may and can answer, cheapest first."""
        serving = [deployment for deployment in self._deployments if deployment.serves == model]
        if not serving:
            raise ModelNotFound(f"There is no model {model!r}: list the models to see their names.", model=model)
        if serving[0].embeds != embeds:
            kind = "an embedding" if serving[0].embeds else "a chat"
            raise FieldInvalid("model", f"{model!r} is {kind} model and cannot do this")
        kept = eligible(model, serving, limits, needs)
        return cheapest_first(kept, self._prices, needs.input_tokens, 0 if embeds else needs.likely_output_tokens)

    async def _noted(self, opened: Answered[OpenAnswer]) -> AsyncGenerator[AnswerEvent, None]:
        """The events of an answer; how it ends is noted."""
        ended: Ended | None = None
        try:
            async with aclosing(opened.answer.events(self._coalesce_seconds)) as events:
                async for event in events:
                    if isinstance(event, Ended):
                        ended = event
                    else:
                        yield event
        except ProviderFailure as failure:
            self._failover.broken(opened.deployment, failure)
            raise _broken(opened.deployment) from None
        except (GeneratorExit, asyncio.CancelledError):
            self._failover.cancelled(opened.deployment)
            raise
        assert ended is not None
        self._failover.completed(opened.deployment)
        yield ended

    async def _condition(self, deployment: Deployment) -> Condition:
        condition = await self._egress.condition(deployment)
        seconds = self._failover.seconds_until_free(deployment)
        if condition.health is Health.READY and seconds:
            return Condition(Health.UNAVAILABLE, f"failed lately; left alone for another {seconds:.0f} s")
        return condition


def _broken(deployment: Deployment) -> ProviderStreamBroken:
    return ProviderStreamBroken(
        f"The answer of {deployment.provider!r} broke off: ask again.",
        provider=deployment.provider,
        deployment=deployment.name,
        retry_after_seconds=1,
    )
