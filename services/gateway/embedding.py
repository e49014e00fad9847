"""Embeds texts: judged, paid for and routed as a chat is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from llmmesh.billing.v1 import billing_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.identity import Identity
from services.gateway.catalogue import Offer
from services.gateway.exchange import DataClass, Exchange, Report
from services.gateway.max_cost import least
from services.gateway.pacing import one_within_limits
from services.gateway.policies import TenantPolicy
from services.gateway.resources import Resources
from services.gateway.screening import routed_class, screen
from services.gateway.spending import Spending, held
from services.gateway.tokens import estimated_tokens, text_token_bound


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """Vectors in the order of the texts."""

    vectors: Sequence[router_pb2.Embedding]
    usage: chat_pb2.TokenUsage
    report: Report


class Embedding:
    """Embeds texts for both faces."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._peers = resources.peers
        self._known = resources.known

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        caller: Identity,
        data_class: DataClass,
        max_cost_micros: int | None = None,
    ) -> EmbeddedTexts:
        """Embed texts at least as sensitive as `data_class`; a cancel stops the provider and lets the money go."""
        exchange = Exchange(caller, model, data_class=data_class, prompt_texts=texts)
        async with self._resources.accounts.recorded(exchange):
            policy = await self._known.policies.admit(caller)
            exchange.tenant_policy_version = policy.version
            exchange.keeps_contents = policy.keep_contents
            offer = self._known.catalogue.embedding_offer(model, policy)
            exchange.known_model = True
            async with one_within_limits(
                policy.scopes(caller), self._resources.limiter, exchange, lambda: _estimated_tokens(texts)
            ):
                messages = [_message(text) for text in texts]
                await screen(exchange, messages, self._peers.guard, self._known.guard_policy, policy)
                reservation = billing_pb2.CreateReservationRequest(
                    request_id=caller.request_id,
                    model=offer.model,
                    deployments=offer.deployments,
                    input_tokens=text_token_bound(texts),
                    max_cost_micros=least(max_cost_micros, policy.max_cost_micros),
                )
                return await self._embedded(exchange, _request(exchange, policy, offer, texts), reservation)

    async def _embedded(
        self,
        exchange: Exchange,
        request: router_pb2.EmbedTextRequest,
        reservation: billing_pb2.CreateReservationRequest,
    ) -> EmbeddedTexts:
        with await held(self._spending(exchange, reservation, request.texts)) as spending:
            spending.narrow(request.constraints)
            exchange.candidates = request.constraints.deployments
            asked = time.perf_counter()
            response = await self._peers.router.embed(request)
            exchange.provider_seconds = time.perf_counter() - asked
            exchange.first_byte_seconds = exchange.seconds()
            spending.begin(response.route)
            spending.settle(response.usage, chat_pb2.FINISH_REASON_STOP)
            cost_micros = await spending.cost_micros()
        report = exchange.report(cost_micros, spending.currency_code)
        return EmbeddedTexts(response.embeddings, response.usage, report)

    async def _spending(
        self, exchange: Exchange, asked: billing_pb2.CreateReservationRequest, texts: Sequence[str]
    ) -> Spending:
        billing = self._peers.billing
        reservation = await billing.reserve(asked)
        return Spending(
            exchange, asked, reservation, lambda: _estimated_tokens(texts), billing, self._resources.settle_later
        )


def _estimated_tokens(texts: Sequence[str]) -> int:
    return sum(estimated_tokens(text) for text in texts)


def _message(text: str) -> chat_pb2.ChatMessage:
    return chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])


def _request(
    exchange: Exchange, policy: TenantPolicy, offer: Offer, texts: Sequence[str]
) -> router_pb2.EmbedTextRequest:
    constraints = router_pb2.RouteConstraints(
        deployments=offer.deployments, data_class=routed_class(exchange), residency=policy.residency
    )
    return router_pb2.EmbedTextRequest(
        model=offer.model, texts=texts, constraints=constraints, preferences=policy.preferences()
    )
