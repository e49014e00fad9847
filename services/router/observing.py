"""How chats go: told, once each is over, to those who learn from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import MeshError
from meshkit.identity import Identity
from services.router.deployment import Deployment
from services.router.failover import FailedAttempt
from services.router.ranking import Demand, Price
from services.router.routing import Chosen, Finished, RouteEvent, Router

PER = 1_000_000
"""Prices are for so many tokens."""


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
    seconds: float = 0.0
    """Time spent waiting for providers; 0 when it broke off."""
    cost_micros: int = 0


Observer = Callable[[Chat], None]
"""Told of a chat that is over; one whose caller left is told to nobody, for it shows nothing."""


@dataclass(frozen=True, slots=True)
class ObservedRouter:
    """A router whose chats are told to observers."""

    router: Router
    prices: Mapping[str, Price]
    observers: Sequence[Observer] = field(default_factory=tuple)

    async def stream_chat(self, demand: Demand, asker: Identity) -> AsyncGenerator[RouteEvent, None]:
        """Answer as `Router.stream_chat` does."""
        chat = Chat(asker, demand)
        try:
            async with aclosing(self.router.stream_chat(demand)) as events:
                async for event in events:
                    self._note(chat, event)
                    yield event
        except MeshError:
            self._tell(chat)
            raise

    def _note(self, chat: Chat, event: RouteEvent) -> None:
        if isinstance(event, Chosen):
            chat.deployment, chat.failed = event.deployment, event.failed
        elif isinstance(event, Finished):
            assert chat.deployment is not None
            chat.finished, chat.seconds = True, event.provider_seconds
            chat.cost_micros = cost_micros(self.prices.get(chat.deployment.name), event.usage)
            self._tell(chat)

    def _tell(self, chat: Chat) -> None:
        for observer in self.observers:
            observer(chat)


def cost_micros(price: Price | None, usage: chat_pb2.TokenUsage) -> int:
    """What an answer cost, about: cached tokens count as others do; 0 where no price is known."""
    if price is None:
        return 0
    read = usage.input_tokens + usage.cached_input_tokens + usage.cache_write_tokens
    written = usage.output_tokens + usage.reasoning_tokens
    return (price.input_micros * read + price.output_micros * written) // PER
