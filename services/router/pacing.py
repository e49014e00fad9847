"""The pace of an answer: how long it may keep us waiting, and how often it is worth a message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeAlias

from llmmesh.chat.v1 import chat_pb2
from services.router.deltas import append, says_something
from services.router.deployment import TimeLimits
from services.router.providers.provider import AnswerEvent, Ended, FailureKind, ProviderFailure

READ_AHEAD_EVENTS = 256
"""Events held for a slow caller before the provider is left waiting."""

_Item: TypeAlias = AnswerEvent | Exception


class TimedStream:
    """An answer under its deployment's time limits; counts the time spent waiting."""

    def __init__(self, events: AsyncGenerator[AnswerEvent, None], limits: TimeLimits) -> None:
        self._events = events
        self._limits = limits
        self._started = time.monotonic()
        self.waited_seconds = 0.0
        self._first_seconds = 0.0

    @property
    def waited_since_first_seconds(self) -> float:
        """Time spent waiting after the first token."""
        return self.waited_seconds - self._first_seconds

    async def first(self) -> AnswerEvent:
        """Wait for the first token, or for an answer that ends without one.

        Raises:
            ProviderFailure: If neither comes in time.
        """
        event = await self._token(self._limits.first_token_seconds, overall=True)
        self._first_seconds = self.waited_seconds
        return event

    async def next(self) -> AnswerEvent:
        """Wait for the next piece, or the end.

        Raises:
            ProviderFailure: If the provider breaks off, or keeps silent for too long.
        """
        spent = time.monotonic() - self._started
        return await self._token(min(self._limits.idle_chunk_seconds, self._limits.answer_seconds - spent))

    async def aclose(self) -> None:
        """Close the provider's connection."""
        await self._events.aclose()

    async def _token(self, seconds: float, *, overall: bool = False) -> AnswerEvent:
        """The next event that is no empty piece; `overall` gives all the empty ones together `seconds`."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds) as silence:
                while True:
                    event = await anext(self._events)
                    if isinstance(event, Ended) or says_something(event):
                        return event
                    if not overall:
                        silence.reschedule(asyncio.get_running_loop().time() + seconds)
        except StopAsyncIteration:
            raise ProviderFailure(FailureKind.MALFORMED, "the answer stopped without an end") from None
        except TimeoutError:
            raise ProviderFailure(FailureKind.TIMEOUT, f"nothing for {seconds:.3g} s") from None
        finally:
            self.waited_seconds += time.monotonic() - began


async def coalesced(
    following: Callable[[], Awaitable[AnswerEvent]], window_seconds: float
) -> AsyncGenerator[AnswerEvent, None]:
    """Read ahead up to the end, and merge the deltas that arrive within `window_seconds` of the last one sent.

    Each message costs every hop some 100 µs of CPU. Closing stops reading; a failure of `following` is raised
    after what arrived before it.
    """
    arrived: asyncio.Queue[_Item] = asyncio.Queue(READ_AHEAD_EVENTS)
    over = asyncio.Event()
    reading = asyncio.create_task(_read(following, arrived, over))
    sent = asyncio.get_running_loop().time()
    try:
        while True:
            item = await arrived.get()
            await _pause(sent + window_seconds, over)
            item, rest = _merged(item, arrived)
            for event in (item, rest):
                if isinstance(event, Exception):
                    raise event
                if event is not None:
                    yield event
                if isinstance(event, Ended):
                    return
            sent = asyncio.get_running_loop().time()
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def _read(
    following: Callable[[], Awaitable[AnswerEvent]], arrived: asyncio.Queue[_Item], over: asyncio.Event
) -> None:
    item: _Item | None = None
    while isinstance(item, chat_pb2.Delta) or item is None:
        try:
            item = await following()
        except Exception as failure:  # noqa: BLE001 - raised where the events are consumed
            item = failure
        await arrived.put(item)
    over.set()


async def _pause(until: float, over: asyncio.Event) -> None:
    """Wait for more to arrive, but not once everything has."""
    if over.is_set() or until <= asyncio.get_running_loop().time():
        return
    try:
        async with asyncio.timeout_at(until):
            await over.wait()
    except TimeoutError:
        return


def _merged(item: _Item, arrived: asyncio.Queue[_Item]) -> tuple[_Item, _Item | None]:
    """`item` with the deltas that wait behind it, and the first thing behind those that is no delta."""
    if not isinstance(item, chat_pb2.Delta) or arrived.empty():
        return item, None
    merged = chat_pb2.Delta()
    merged.CopyFrom(item)
    while not arrived.empty():
        following = arrived.get_nowait()
        if not isinstance(following, chat_pb2.Delta):
            return merged, following
        append(merged, following)
    return merged, None
