"""How chats go: told, once each is over, to those who learn from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import MeshError
from meshkit.identity import Identity
from meshkit.usage import all_input_tokens, all_output_tokens
from services.router.attempt import caller_is_gone
from services.router.deployment import Deployment
from services.router.experiments.treatment import Treatment
from services.router.failover import FailedAttempt, failures_of
from services.router.providers.provider import FailureKind
from services.router.ranking import PRICED_TOKENS, Demand, Price
from services.router.routing import Chosen, Finished, RouteEvent, Router


@dataclass(slots=True)
class Chat:
    """One chat and how it went."""

    asker: Identity
    demand: Demand
    deployment: Deployment | None = None
    """Who answered; None when nobody did."""
    failed: Sequence[FailedAttempt] = ()
    finished: bool = False
    """Whether the answer came to its end."""
    left: bool = False
    """Whether its caller hung up, or its deadline was over, before the end."""
    first_token_seconds: float = 0.0
    """From the request to the first token; 0 when there was none."""
    seconds: float = 0.0
    """Time spent waiting for providers; 0 when it broke off."""
    cost_micros: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    counted_as: list[Treatment] = field(default_factory=list)
    """Variants it is counted for: its own, and the originals of its copies."""

    def __post_init__(self) -> None:
        if self.demand.treatment is not None:
            self.counted_as.append(self.demand.treatment)


Observer = Callable[[Chat], None]
"""Told of a chat that is over."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Tells observers how chats went."""

    prices: Mapping[str, Price]
    observers: Sequence[Observer] = field(default_factory=tuple)
    begun: Observer = lambda _: None
    """Told of a chat whose first token has come."""
    clock: Callable[[], float] = time.monotonic

    async def through(self, chat: Chat, answer: AsyncGenerator[RouteEvent, None]) -> AsyncGenerator[RouteEvent, None]:
        """The events of an answer as they come; closing closes it."""
        began = self.clock()
        try:
            async with aclosing(answer):
                async for event in answer:
                    self._note(chat, event, began)
                    yield event
        except MeshError as error:
            chat.failed = chat.failed or failures_of(error)
            # Whoever failed before the time was over failed all the same.
            chat.left = caller_is_gone() and all(each.failure.kind is FailureKind.TIMEOUT for each in chat.failed)
            self._tell(chat)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            chat.left = not chat.finished
            if chat.left:
                self._tell(chat)
            raise

    def _note(self, chat: Chat, event: RouteEvent, began: float) -> None:
        if isinstance(event, Chosen):
            chat.deployment, chat.failed = event.deployment, event.failed
            chat.first_token_seconds = self.clock() - began
            chat.cost_micros = self._wasted_micros(event)
            self.begun(chat)
        elif isinstance(event, Finished):
            assert chat.deployment is not None
            chat.finished, chat.seconds = True, event.provider_seconds
            chat.cost_micros += cost_micros(self.prices.get(chat.deployment.name), event.usage)
            chat.input_tokens = all_input_tokens(event.usage)
            chat.output_tokens = all_output_tokens(event.usage)
            self._tell(chat)

    def _wasted_micros(self, chosen: Chosen) -> int:
        """What those cost who were asked beside the one that spoke first."""
        usage, outpaced = chosen.outpaced_usage, (each for each in chosen.failed if each.outpaced)
        return sum(cost_micros(self.prices.get(each.deployment.name), usage) for each in outpaced) if usage else 0

    def _tell(self, chat: Chat) -> None:
        for observer in self.observers:
            observer(chat)


@dataclass(frozen=True, slots=True)
class ObservedRouter:
    """A router whose chats are told to observers."""

    router: Router
    observation: Observation

    def stream_chat(self, demand: Demand, asker: Identity) -> AsyncGenerator[RouteEvent, None]:
        """Answer as `Router.stream_chat` does, as the demand's variant has it."""
        chat = Chat(asker, self.router.treated(demand, asker))
        return self.observation.through(chat, self.router.stream_chat(chat.demand))


def cost_micros(price: Price | None, usage: chat_pb2.TokenUsage) -> int:
    """What an answer cost, about: cached tokens count as others do; 0 where no price is known."""
    if price is None:
        return 0
    read, written = all_input_tokens(usage), all_output_tokens(usage)
    return (price.input_micros * read + price.output_micros * written) // PRICED_TOKENS
