"""One model call for one question: who asks the same meanwhile waits for the answer, or hears it while it is spoken."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from llmmesh.cache.v1 import cache_pb2
from llmmesh.gateway.v1 import gateway_pb2
from services.gateway.broadcast import Broadcast
from services.gateway.exchange import CacheStatus, Event, Exchange

RECENT_SECONDS = 2.0
"""How long an answer is remembered for those who asked before it was there and find the cache away: it may be away for
storing, too. Who asks later might be given what has been purged meanwhile."""
MOST_RECENT = 1000


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up brought."""

    answer: cache_pb2.CachedAnswer | None = None
    unavailable: bool = False
    similarity: float = 0.0
    """Of a semantic hit."""
    lease_id: str = ""
    """The sole right to answer, taken by this look-up."""
    leased_elsewhere: bool = False
    """Whether another has that right."""
    copy_seconds: float = 0.0
    """How long after it was asked for the answer may be given again."""
    unreachable: bool = False
    """Whether it was the cache that was `unavailable`, not what it keeps its answers in."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer that needs no model call."""

    answer: cache_pb2.CachedAnswer
    status: CacheStatus
    similarity: float = 0.0


@dataclass(frozen=True, slots=True)
class Live:
    """An answer that is being spoken."""

    broadcast: Broadcast[Event]
    leader: Exchange
    """Who asked first, and pays."""


class Flight:
    """One asking; `landed` tells those who wait for it how it ended, `begun` where they can hear it.

    Leaving the block without an answer sends them on alone, but for a cancel: then the next of them leads.
    """

    def __init__(self, lease_id: str = "", end: Callable[[Flight], None] | None = None) -> None:
        self.lease_id = lease_id
        """A lease that is to be given back; empty when there is none, or somebody else will."""
        self.brought = lease_id
        """The lease it began with; look-ups of one moment share one."""
        self.hit: Hit | None = None
        self.live: Live | None = None
        self.leads = end is not None
        """Whether others may be waiting for it."""
        self.abandoned = False
        self.landed_at = math.inf
        """By `time.perf_counter`."""
        self._end = end
        self._begun = asyncio.Event()
        self._landed = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandoned = isinstance(error, asyncio.CancelledError | GeneratorExit) and not self._landed.is_set()
        self.land(None)

    def land(self, hit: Hit | None) -> None:
        """Give everybody who waits the answer, or send them on alone; only the first time counts."""
        if self._landed.is_set():
            return
        self.hit, self.landed_at = hit, time.perf_counter()
        if self._end is not None:
            self._end(self)
        self._begun.set()
        self._landed.set()

    def spoken(self, events: AsyncGenerator[Event, None], leader: Exchange) -> AsyncGenerator[Event, None]:
        """The same events, for others to hear too; they go on until the last who hears them has left."""
        live = Live(Broadcast(events, lambda: self._go_live(live)), leader)
        leader.broadcast = live.broadcast
        return live.broadcast.listen()

    def _go_live(self, live: Live) -> None:
        if not live.leader.cacheable:
            self.land(None)
        elif not self._landed.is_set():
            self.live = live
            self._begun.set()

    async def begun(self, until: float) -> bool:
        """Wait for its first word, or its end, at most until a time of the loop; whether there is one."""
        return await _set(self._begun, until)

    async def landed(self, until: float) -> bool:
        """Wait for its end, at most until a time of the loop; whether it ended."""
        return await _set(self._landed, until)


class Flights:
    """What is being asked in this process, by question.

    Who asks here is waited for as long as an answer may take: here nobody dies unnoticed, as another process may.
    """

    def __init__(self, *, here_seconds: float, elsewhere_seconds: float) -> None:
        self._here_seconds = here_seconds
        self._elsewhere_seconds = elsewhere_seconds
        self._under_way: dict[Hashable, Flight] = {}
        self._recent: dict[Hashable, Flight] = {}

    async def board(
        self,
        key: Hashable,
        found: Found,
        await_answer: Callable[[float], Awaitable[Found]],
        *,
        hears: bool,
        asked_at: float,
    ) -> Flight:
        """Join or lead the asking of a question that was not in the cache, and whose answer others may have.

        What comes back has a `hit`, or is `live` for one who `hears` an answer while it is spoken, or its holder asks
        the model: as the only one, unless it has waited too long or was told that the answer is not for sharing.
        `await_answer` waits so many seconds for another process; `asked_at` is when this one asked, by
        `time.perf_counter`.
        """
        landed = self._recent.get(key)
        if found.unavailable and landed is not None and asked_at < landed.landed_at:
            return _follower(landed, found)
        until = asyncio.get_running_loop().time() + self._here_seconds
        while (leader := self._under_way.get(key)) is not None:
            if hears and await leader.begun(until) and leader.live and not leader.live.broadcast.ended:
                return _follower(leader, found, leader.live)
            if not await leader.landed(until):
                return Flight(_own_lease(leader, found))
            if not leader.abandoned:
                return _follower(leader, found)
        return await self._lead(key, found, await_answer)

    async def _lead(self, key: Hashable, found: Found, await_answer: Callable[[float], Awaitable[Found]]) -> Flight:
        flight = self._under_way[key] = Flight(found.lease_id, lambda flight: self._ended(key, flight))
        if not found.leased_elsewhere:
            return flight
        try:
            found = await await_answer(self._elsewhere_seconds)
        except BaseException:
            flight.abandoned = True
            flight.land(None)
            raise
        flight.lease_id = found.lease_id
        if found.answer is not None:
            flight.land(Hit(found.answer, gateway_pb2.CACHE_STATUS_EXACT))
        return flight

    def _ended(self, key: Hashable, flight: Flight) -> None:
        if self._under_way.get(key) is flight:
            del self._under_way[key]
        if flight.hit is not None and len(self._recent) < MOST_RECENT:
            self._recent[key] = flight
            asyncio.get_running_loop().call_later(RECENT_SECONDS, self._recent.pop, key, None)


def _own_lease(leader: Flight, found: Found) -> str:
    """A lease that the leader does not hold: it was free again when the follower looked."""
    return "" if found.lease_id == leader.brought else found.lease_id


def _follower(leader: Flight, found: Found, live: Live | None = None) -> Flight:
    flight = Flight(_own_lease(leader, found))
    flight.hit, flight.live = leader.hit, None if leader.hit else live
    return flight


async def _set(event: asyncio.Event, until: float) -> bool:
    try:
        async with asyncio.timeout_at(until):
            await event.wait()
    except TimeoutError:
        return False
    return True
