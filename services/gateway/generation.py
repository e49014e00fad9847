"""Has a model answer: through the router, past the guard, settled."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from services.gateway.config import GatewayConfig
from services.gateway.exchange import Event, Exchange, Finished
from services.gateway.peers.connections import Peers
from services.gateway.planning import Plan
from services.gateway.policies import TenantPolicy
from services.gateway.screening import Masked, opening, routed_class
from services.gateway.spending import Spending
from services.gateway.stops import AnswerStopped
from services.gateway.tee import Piece, Steps, Tee, unwatched
from services.gateway.unmasking import Unmasking

KEPT = frozenset({router_pb2.VARIANT_USE_APPLIED, router_pb2.VARIANT_USE_BARRED})
"""What may become of a variant for its next caller to have the same answer."""


class Generation:
    """One question on its way to a model, which may be asked more than once."""

    def __init__(
        self, peers: Peers, config: GatewayConfig, exchange: Exchange, policy: TenantPolicy, masked: Masked | None
    ) -> None:
        self.said: list[str] = []
        """Text of the latest attempt as the model wrote it, placeholders and all."""
        self._peers = peers
        self._config = config
        self._exchange = exchange
        self._policy = policy
        self._masked = masked

    def request(self, plan: Plan, *, whole: bool) -> router_pb2.StreamGenerateChatRequest:
        """What the router is asked; `whole` if nobody reads the answer before its end."""
        constraints = router_pb2.RouteConstraints(
            deployments=plan.offer.deployments,
            data_class=self._masked.data_class if self._masked else routed_class(self._exchange),
            residency=self._policy.residency,
            shadows=plan.offer.shadows,
            one_at_a_time=plan.max_cost_micros is not None,
        )
        request = router_pb2.StreamGenerateChatRequest(
            prompt=plan.prompt, constraints=constraints, preferences=self._policy.preferences(), whole=whole
        )
        if self._masked:
            del request.prompt.messages[:]
            request.prompt.messages.extend(self._masked.messages)
        return request

    async def attempt(
        self, request: router_pb2.StreamGenerateChatRequest, spending: Spending
    ) -> AsyncGenerator[Event, None]:
        """The provider's answer as the guard releases it, then the settlement."""
        spending.narrow(request.constraints, request.prompt.options)
        exchange, asked = self._exchange, time.perf_counter()
        exchange.candidates = request.constraints.deployments
        self.said.clear()
        finished = router_pb2.Finished()
        steps = _counted(self._peers.router.generate(request), spending)
        json_text = "json" in request.prompt.options.response_format_json
        try:
            async with aclosing(
                self._unmasked(self._guarded(steps, request, json_text=json_text), json_text=json_text)
            ) as pieces:
                async for piece in pieces:
                    if isinstance(piece, router_pb2.RouteChosen):
                        exchange.provider_seconds = time.perf_counter() - asked
                        exchange.strays = _strays(request, piece)
                        yield exchange.route()
                    elif isinstance(piece, router_pb2.Finished):
                        finished = piece
                    else:
                        yield piece
        except AnswerStopped as stop:
            exchange.stopped(stop)
            finished = router_pb2.Finished(finish_reason=stop.finish_reason)
        exchange.provider_seconds = _provider_seconds(finished, asked)
        yield await self._settled(finished, spending)

    def hidden(self, text: str) -> str:
        """A text of ours that may name the caller's words, fit for the provider."""
        for placeholder, original in self._masked.originals.items() if self._masked else ():
            text = text.replace(original, placeholder)
        return text

    async def _unmasked(self, pieces: AsyncGenerator[Piece, None], *, json_text: bool) -> AsyncGenerator[Piece, None]:
        """The pieces with the caller's own words where the provider had placeholders."""
        if self._masked:
            pieces = Unmasking(self._masked.originals, json_text=json_text).through(pieces)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _guarded(
        self, steps: Steps, request: router_pb2.StreamGenerateChatRequest, *, json_text: bool
    ) -> AsyncGenerator[Piece, None]:
        if self._exchange.unwatched:
            async with aclosing(unwatched(steps)) as pieces:
                async for piece in pieces:
                    yield self._noted(piece)
            return
        tee = Tee(
            self._peers.guard.watch,
            fail_open=self._policy.guard_fail_open,
            verdict_seconds=self._peers.guard.patience(self._policy),
            opening=opening(request, self._policy, self._exchange),
            json_text=json_text,
        )
        try:
            async with aclosing(tee.through(steps)) as pieces:
                async for piece in pieces:
                    yield self._noted(piece)
        finally:
            self._exchange.noted(tee.failures, "output")
            self._exchange.unguarded |= tee.unguarded
        for verdict in tee.verdicts:
            self._exchange.judged(verdict, "output")

    def _noted(self, piece: Piece) -> Piece:
        if isinstance(piece, chat_pb2.Delta):
            self.said.append(piece.text)
        return piece

    async def _settled(self, finished: router_pb2.Finished, spending: Spending) -> Finished:
        exchange = self._exchange
        exchange.finish_reason = finished.finish_reason
        _settle(finished, spending)
        cost_micros = await spending.cost_micros()
        return Finished(finished.finish_reason, exchange.usage, exchange.report(cost_micros, spending.currency_code))


async def _counted(steps: Steps, spending: Spending) -> AsyncGenerator[router_pb2.StreamGenerateChatResponse, None]:
    """The same steps; what they hold is owed from here on, whether the guard releases it or not."""
    async with aclosing(steps):
        async for step in steps:
            if step.HasField("route"):
                spending.begin(step.route)
            elif step.HasField("delta"):
                spending.count(step.delta)
                await spending.keep_covered()
            else:
                # The guard may still be at the last piece; what the provider is owed no longer hangs on it.
                _settle(step.finished, spending)
            yield step


def _strays(request: router_pb2.StreamGenerateChatRequest, route: router_pb2.RouteChosen) -> bool:
    # What is barred for its cost is not barred for others.
    kept = KEPT - {router_pb2.VARIANT_USE_BARRED} if request.constraints.one_at_a_time else KEPT
    return bool(request.prompt.variant) and route.variant_use not in kept


def _settle(finished: router_pb2.Finished, spending: Spending) -> None:
    spending.settle(finished.usage if finished.HasField("usage") else spending.estimate(), finished.finish_reason)


def _provider_seconds(finished: router_pb2.Finished, asked: float) -> float:
    """What the router measured; everything since it was asked when the answer was stopped midway."""
    if finished.HasField("provider_time"):
        return finished.provider_time.ToTimedelta().total_seconds()
    return time.perf_counter() - asked
