"""Holds callers to their rate limits, where they have any."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from llmmesh.chat.v1 import chat_pb2
from services.gateway.exchange import Event, Exchange, Finished
from services.gateway.limits.limiter import Limiter
from services.gateway.limits.scope import Scope
from services.gateway.tokens import estimated_prompt_tokens


def foreseen_tokens(prompt: chat_pb2.ChatPrompt, scopes: Sequence[Scope]) -> int:
    """What an answer may take, as far as its caller says: counted beforehand, and corrected by what it took."""
    if not any(scope.limits.counts_tokens for scope in scopes):
        return 0
    return estimated_prompt_tokens(prompt) + prompt.options.max_output_tokens


async def within_limits(
    events: AsyncGenerator[Event, None], limiter: Limiter, scopes: Sequence[Scope], tokens: int, exchange: Exchange
) -> AsyncGenerator[Event, None]:
    """The same events, once there is room for them; the caller's next request finds this one ended.

    What the caller leaves while others hear it is counted when it ends. Raises RateLimited before the first.
    """

    def goes_on() -> bool:
        return exchange.broadcast is not None and not exchange.broadcast.over

    async with limiter.permit(scopes, tokens, exchange.tokens_taken, goes_on) as permit, aclosing(events):
        exchange.permit, exchange.limit_headers = permit, permit.headers
        async for event in events:
            if isinstance(event, Finished):
                await permit.settle()
            yield event


@asynccontextmanager
async def one_within_limits(
    scopes: Sequence[Scope], limiter: Limiter, exchange: Exchange, tokens: Callable[[], int]
) -> AsyncIterator[None]:
    """Hold a request that is answered at once to its limits; raises RateLimited."""
    if not scopes:
        yield
        return
    async with limiter.permit(scopes, tokens(), exchange.tokens_taken) as permit:
        exchange.limit_headers = permit.headers
        yield
