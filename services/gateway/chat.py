"""Answers a question: the only place that knows in which order the rooms are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing, contextmanager

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from meshkit.identity import Identity
from services.gateway.assignment import assign
from services.gateway.beside import running_beside
from services.gateway.catalogue import Offer
from services.gateway.config import GatewayConfig
from services.gateway.exchange import Event, Exchange, Question
from services.gateway.flights import Flight, Found, Hit
from services.gateway.forming import Forming, checked
from services.gateway.generation import Generation
from services.gateway.max_cost import least
from services.gateway.output_format import OutputFormat, output_format
from services.gateway.pacing import foreseen_tokens, within_limits
from services.gateway.planning import Plan, planned
from services.gateway.policies import TenantPolicy
from services.gateway.remembering import answer_to_store, lookup, may_be_shared, still_served, store_request
from services.gateway.replay import overheard, replayed
from services.gateway.resources import CacheOrder, Resources
from services.gateway.screening import Masked, masked_prompt, screen, shown_messages
from services.gateway.spending import Advance, Spending, held
from services.gateway.tokens import estimated_prompt_tokens, prompt_texts

MISS = gateway_pb2.CACHE_STATUS_MISS
BYPASS = gateway_pb2.CACHE_STATUS_BYPASS
UNAVAILABLE = gateway_pb2.CACHE_STATUS_UNAVAILABLE
EXACT = cache_pb2.CACHE_LEVEL_EXACT
SEMANTIC = cache_pb2.CACHE_LEVEL_SEMANTIC
REPAIR_SUFFIX = "-repair"
"""Marks the second answer of a request in the ledger."""


class Chat:
    """Answers questions for both faces."""

    def __init__(self, resources: Resources, config: GatewayConfig) -> None:
        self._resources = resources
        self._config = config

    async def answer(self, question: Question, caller: Identity) -> AsyncGenerator[Event, None]:
        """Answer: one route, deltas, one finished.

        Whatever fails before the first event is raised before it. Closing the generator, or a cancel, stops the
        provider; what it had said until then is billed.
        """
        exchange = Exchange(
            caller,
            question.prompt.model,
            data_class=question.data_class,
            prompt_texts=tuple(prompt_texts(question.prompt)),
        )
        flow = _Flow(self._resources, self._config, question, exchange)
        async with (
            self._resources.accounts.recorded(exchange),
            aclosing(await flow.admitted()) as events,
        ):
            async for event in events:
                if exchange.first_byte_seconds is None:
                    exchange.first_byte_seconds = exchange.seconds()
                yield event


class _Flow:
    """One question on its way through the rooms."""

    def __init__(self, resources: Resources, config: GatewayConfig, question: Question, exchange: Exchange) -> None:
        self._resources = resources
        self._peers = resources.peers
        self._known = resources.known
        self._config = config
        self._question = question
        self._exchange = exchange
        self._policy = TenantPolicy()
        self._lookup = cache_pb2.LookupAnswerRequest()
        self._found = Found()
        self._masked: Masked | None = None
        self._format: OutputFormat | None = None

    async def admitted(self) -> AsyncGenerator[Event, None]:
        """Let the caller in; returns the events of its answer, held to its rate limits if it has any."""
        self._policy = await self._known.policies.admit(self._exchange.caller)
        self._exchange.tenant_policy_version = self._policy.version
        self._exchange.keeps_contents = self._policy.keep_contents
        offer = self._known.catalogue.chat_offer(self._exchange.model, self._policy)
        self._exchange.known_model = True
        events = self._events(offer)
        scopes = self._policy.scopes(self._exchange.caller)
        if not scopes:
            return events
        tokens = foreseen_tokens(self._question.prompt, scopes)
        return within_limits(events, self._resources.limiter, scopes, tokens, self._exchange)

    async def _events(self, offer: Offer) -> AsyncGenerator[Event, None]:
        """The order of things."""
        added_tokens = assign(self._question.prompt, offer.split, self._exchange.caller)
        hit = await self._exact_answer(offer)
        async with aclosing(self._replayed(hit) if hit else await self._unheard_of(offer, added_tokens)) as events:
            async for event in events:
                yield event

    async def _unheard_of(self, offer: Offer, added_tokens: int) -> AsyncGenerator[Event, None]:
        """The answer to a question that the exact cache does not know: somebody else's, or one that others may have."""
        self._format = output_format(self._question.prompt.options.response_format_json)
        max_cost = least(self._question.max_cost_micros, self._policy.max_cost_micros)
        plan = planned(self._question, offer, self._config.default_max_output_tokens, added_tokens, max_cost)
        flight = await self._flight(plan)
        if flight.hit is not None:
            return self._replayed(flight.hit)
        if flight.live is not None:
            return overheard(self._exchange, flight.live, self._config.currency_code)
        events = self._led(plan, flight)
        return flight.spoken(events, self._exchange) if flight.leads and self._hears(plan) else events

    def _hears(self, plan: Plan) -> bool:
        """Whether the answer may be heard by others while it is spoken, or be that of another.

        Tools are called for one caller, and what may cost no more is cut for one.
        """
        return not self._question.whole and not plan.prompt.options.tools_json and plan.max_cost_micros is None

    async def _led(self, plan: Plan, flight: Flight) -> AsyncGenerator[Event, None]:
        try:
            with flight, self._lease_given_back(flight):
                async with aclosing(self._found_or_bought_answer(plan, flight)) as events:
                    async for event in events:
                        yield event
        finally:
            if self._exchange.permit is not None:
                await self._exchange.permit.settle()

    async def _found_or_bought_answer(self, plan: Plan, flight: Flight) -> AsyncGenerator[Event, None]:
        """While the guard judges the prompt, look for the same question in other words, and else hold the money.

        Nothing found is used before the verdict, nor when the data is too sensitive.
        """
        version = self._guard_version()
        async with running_beside(self._semantic_answer(version, plan.offer)) as search:
            with Advance(self._reserved_unless_found(search, plan)) as advance:
                await self._screened()
                hit = self._usable(await search, version, flight)
                spending = None if hit else await advance.spending() or await held(self._reserved(plan))
        if spending is None:
            assert hit is not None
            async with aclosing(self._replayed(hit)) as events:
                async for event in events:
                    yield event
            return
        with spending:
            async with aclosing(self._generated(plan, spending)) as events:
                async for event in events:
                    if isinstance(event, chat_pb2.Delta):
                        self._exchange.sent(event)
                    yield event
        self._remember(flight)

    def _replayed(self, hit: Hit) -> AsyncGenerator[Event, None]:
        self._exchange.cache_status, self._exchange.similarity = hit.status, hit.similarity
        pace = self._question.cache.pieces_per_second
        return replayed(self._exchange, hit.answer, self._config.currency_code, pace)

    def _guard_version(self) -> str:
        """What judges this tenant's texts, or "" when it is not known."""
        return self._known.guard_policy.version(self._policy.guard.rules_version)

    async def _exact_answer(self, offer: Offer) -> Hit | None:
        """An answer to these very bytes; it is bound to the guard's policy, so it has passed this very guard."""
        if not self._question.cache.reads or not self._policy.cache_exact or not self._exchange.cacheable:
            self._exchange.cache_status = BYPASS
            return None
        version = self._guard_version()
        if not version:
            self._exchange.cache_status = UNAVAILABLE
            return None
        self._lookup = lookup(self._question, self._policy, version, EXACT, self._config.flight_seconds)
        found = await self._peers.cache.look_up(self._lookup)
        self._found = still_served(found, offer)
        if self._found.answer is None:
            self._exchange.cache_status = UNAVAILABLE if found.unavailable else MISS
            return None
        self._exchange.guard_policy_version = version
        return Hit(self._found.answer, gateway_pb2.CACHE_STATUS_EXACT)

    async def _flight(self, plan: Plan) -> Flight:
        """The answer of somebody who asks the same right now, or the right to ask a model."""
        if not self._config.flight_seconds or not may_be_shared(self._question, self._policy, self._found):
            return Flight()
        question = self._lookup.SerializeToString(deterministic=True)
        key = (self._exchange.caller.tenant_id, self._question.cache.semantic, question)
        flight = await self._resources.flights.board(
            key, self._found, self._await_answer, hears=self._hears(plan), asked_at=self._exchange.started
        )
        if flight.hit or flight.live:
            self._give_back_lease(flight)
            self._exchange.guard_policy_version = self._lookup.guard_policy_version
        return flight

    async def _await_answer(self, seconds: float) -> Found:
        return await self._peers.cache.await_answer(self._lookup, seconds)

    @contextmanager
    def _lease_given_back(self, flight: Flight) -> Iterator[None]:
        """Unless the answer takes it along."""
        try:
            yield
        finally:
            self._give_back_lease(flight)

    def _give_back_lease(self, flight: Flight) -> None:
        if flight.lease_id:
            release = cache_pb2.ReleaseLeaseRequest(lease_id=flight.lease_id)
            flight.lease_id = ""
            self._resources.tell_cache_later(CacheOrder(self._exchange.caller, release))

    async def _screened(self) -> None:
        masked = await screen(
            self._exchange,
            shown_messages(self._question.prompt),
            self._peers.guard,
            self._known.guard_policy,
            self._policy,
            masks=True,
        )
        self._masked = masked_prompt(self._question.prompt, masked) if masked else None

    def _usable(self, found: Found | None, version: str, flight: Flight) -> Hit | None:
        """The answer, if the verdict lets it be used; who waits elsewhere for one that may not waits no longer."""
        if not self._exchange.cacheable:
            flight.land(None)
            self._give_back_lease(flight)
            if self._exchange.cache_status == MISS:
                self._exchange.cache_status = BYPASS
            return None
        if found is None or found.answer is None or self._exchange.guard_policy_version != version:
            return None
        hit = Hit(found.answer, gateway_pb2.CACHE_STATUS_SEMANTIC, found.similarity)
        flight.land(hit)
        self._give_back_lease(flight)
        return hit

    async def _reserved_unless_found(self, search: asyncio.Task[Found | None], plan: Plan) -> Spending | None:
        return None if await search else await self._reserved(plan)

    async def _semantic_answer(self, version: str, offer: Offer) -> Found | None:
        allowed = self._policy.cache_semantic and self._question.cache.semantic and version
        if self._exchange.cache_status == BYPASS or self._found.unreachable or not allowed:
            return None
        found = await self._peers.cache.look_up(lookup(self._question, self._policy, version, SEMANTIC))
        found = still_served(found, offer)
        return found if found.answer else None

    async def _reserved(self, plan: Plan, suffix: str = "") -> Spending:
        asked = plan.reservation(self._exchange.caller.request_id + suffix)
        reservation = await self._peers.billing.reserve(asked)
        prompt = plan.prompt
        return Spending(
            self._exchange,
            asked,
            reservation,
            lambda: estimated_prompt_tokens(prompt),
            self._peers.billing,
            self._resources.settle_later,
        )

    def _generated(self, plan: Plan, spending: Spending) -> AsyncGenerator[Event, None]:
        """The model's answer in the form that was asked for."""
        generation = Generation(self._peers, self._config, self._exchange, self._policy, self._masked)
        request = generation.request(plan, whole=self._question.whole)
        if self._format is None:
            return generation.attempt(request, spending)
        if not self._question.whole:
            return checked(generation.attempt(request, spending), self._format)

        def reserve(prompt: chat_pb2.ChatPrompt) -> Awaitable[Spending]:
            spent = self._exchange.cost_micros if self._exchange.currency_code else None
            return held(self._reserved(plan.repeated(prompt, spent), suffix=REPAIR_SUFFIX))

        return Forming(generation, self._exchange, self._format, reserve).events(request, spending)

    def _remember(self, flight: Flight) -> None:
        """Give the answer to those who wait for it and order it to be stored, if it may be."""
        answer = answer_to_store(self._exchange)
        if answer is None or not self._policy.cache_exact or not self._question.cache.writes:
            return
        flight.land(Hit(answer, gateway_pb2.CACHE_STATUS_EXACT))
        request = store_request(self._question, self._policy, self._exchange, answer, flight.lease_id)
        flight.lease_id = ""
        self._resources.tell_cache_later(CacheOrder(self._exchange.caller, request))
