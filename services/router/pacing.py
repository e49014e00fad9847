"""The pace of an answer: how long it may keep us waiting, and how often it is worth a message."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TypeAlias

from llmmesh.chat.v1 import chat_pb2
from services.router.deltas import append, says_something
from services.router.deployment import TimeLimits
from services.router.providers.provider import AnswerEvent, Ended, FailureKind, ProviderFailure

READ_AHEAD_EVENTS = 256
"""Events held for a slow caller before the provider is left waiting."""
NO_END = "the answer stopped without an end"

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
            raise ProviderFailure(FailureKind.MALFORMED, NO_END) from None
        except TimeoutError:
            raise ProviderFailure(FailureKind.TIMEOUT, f"nothing for {seconds:.3g} s") from None
        finally:
            self.waited_seconds += time.monotonic() - began


async def coalesced(
    events: AsyncGenerator[AnswerEvent, None], window_seconds: float
) -> AsyncGenerator[AnswerEvent, None]:
    """Read ahead up to the end, and merge the deltas that arrive within `window_seconds` of the last one sent.

    Each message costs every hop some 100 µs of CPU. Closing stops reading and closes `events`; a failure of theirs is
    raised after what arrived before it.
    """
    arrived: asyncio.Queue[_Item] = asyncio.Queue(READ_AHEAD_EVENTS)
    over = asyncio.Event()
    reading = asyncio.create_task(_read(events, arrived, over))
    sent = -math.inf
    try:
        while True:
            item = await arrived.get()
            await _pause(sent + window_seconds, over)
            event, failure = _merged(item, arrived)
            if event is not None:
                yield event
            if failure is not None:
                raise failure
            if isinstance(event, Ended):
                return
            sent = asyncio.get_running_loop().time()
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def _read(events: AsyncGenerator[AnswerEvent, None], arrived: asyncio.Queue[_Item], over: asyncio.Event) -> None:
    try:
        async with aclosing(events):
            async for event in events:
                await arrived.put(event)
        last: _Item = ProviderFailure(FailureKind.MALFORMED, NO_END)
    except Exception as failure:  # noqa: BLE001 - raised where the events are consumed
        last = failure
    # What comes after an end is never looked at.
    await arrived.put(last)
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


def _merged(item: _Item, arrived: asyncio.Queue[_Item]) -> tuple[AnswerEvent | None, Exception | None]:
    """What there is to tell of `item` and of what waits behind it, and the failure that comes after that."""
    if isinstance(item, Exception):
        return None, item
    if isinstance(item, Ended) or arrived.empty():
        return item, None
    merged = chat_pb2.Delta()
    merged.CopyFrom(item)
    while not arrived.empty():
        following = arrived.get_nowait()
        if isinstance(following, Ended):
            return replace(following, last=merged), None
        if isinstance(following, Exception):
            return merged, following
        append(merged, following)
    return merged, None
