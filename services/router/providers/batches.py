"""Many texts, embedded in requests of limited size."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import EgressRefused
from services.router.providers.provider import Embedded, ProviderFailure

AT_ONCE = 4
"""Requests on their way together."""


async def embedded_in_batches(
    texts: Sequence[str], size: int, embed: Callable[[Sequence[str]], Awaitable[Embedded]]
) -> Embedded:
    """Embed `size` texts at a time, a few requests at once; the vectors come in the order of the texts.

    Raises:
        ProviderFailure, EgressRefused: The first one; the other requests are cancelled.
    """
    if len(texts) <= size:
        return await embed(texts)
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(batch: Sequence[str]) -> Embedded:
        async with turn:
            return await embed(batch)

    try:
        async with asyncio.TaskGroup() as group:
            starts = range(0, len(texts), size)
            asked = [group.create_task(one(texts[start : start + size])) for start in starts]
    except* (ProviderFailure, EgressRefused) as failures:
        # A `raise` here would leave as a group of one.
        first = failures.exceptions[0]
    else:
        parts = [task.result() for task in asked]
        return Embedded([vector for part in parts for vector in part.vectors], _summed(part.usage for part in parts))
    raise first


def _summed(usages: Iterable[chat_pb2.TokenUsage | None]) -> chat_pb2.TokenUsage | None:
    """Input tokens of all; None if any did not tell."""
    input_tokens = 0
    for usage in usages:
        if usage is None:
            return None
        input_tokens += usage.input_tokens
    return chat_pb2.TokenUsage(input_tokens=input_tokens)
