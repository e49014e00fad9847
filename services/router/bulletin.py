"""What routers tell each other of deployments: openings, waits and returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.router.breaker import Breaker
from services.router.standing import Standing


class Event(StrEnum):
    """What a router saw of a deployment."""

    OPENED = "opened"
    """It failed too often, or its probes did."""
    WAITS = "waits"
    """It asked to be left alone for a while."""
    RETURNED = "returned"
    """Its probes succeeded."""


@dataclass(frozen=True, slots=True)
class News:
    """One event; `at` is when it ends, of a return when it happened, in seconds since the epoch."""

    deployment: str
    event: Event
    at: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """A breaker when it was last looked at."""

    openings: int = 0
    open_until: float = 0.0
    half_open: bool = False


@dataclass(slots=True)
class Bulletin:
    """Finds out what is new in our own breakers, and tells them what others say.

    Routers share no clock but that of the day: machines whose clocks differ by a second open for a second more or less.
    What was heard is never told again.
    """

    standings: Mapping[str, Standing]
    clock: Callable[[], float] = time.monotonic
    time_of_day: Callable[[], float] = time.time
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _running: dict[str, News] = field(default_factory=dict)
    """Our own openings and waits, to be told again until they are over: some router may have missed them."""

    def fresh(self) -> list[News]:
        """What happened to our breakers since the last asking."""
        return [news for name, standing in self.standings.items() if (news := self._change(name, standing.breaker))]

    def running(self) -> list[News]:
        """Our own openings and waits that are not over."""
        now = self.time_of_day()
        self._running = {name: news for name, news in self._running.items() if news.at > now}
        return list(self._running.values())

    def hear(self, news: News) -> None:
        """Let another router's news count here; old news, and those of deployments unknown here, change nothing."""
        if news.deployment not in self.standings:
            return
        breaker, now = self.standings[news.deployment].breaker, self.clock()
        at = now + news.at - self.time_of_day()
        if news.event is Event.RETURNED:
            breaker.learn_return(at, now)
        elif at > now:
            (breaker.learn_opening if news.event is Event.OPENED else breaker.learn_wait)(at, now)
        self._seen[news.deployment] = _look(breaker)

    def _change(self, name: str, breaker: Breaker) -> News | None:
        before, seen = self._seen.get(name, _Seen()), _look(breaker)
        if seen == before:
            return None
        self._seen[name] = seen
        self._running.pop(name, None)
        if before.half_open and not seen.half_open:
            return News(name, Event.RETURNED, self.time_of_day())
        if seen.open_until <= self.clock():
            return None
        event = Event.OPENED if seen.half_open else Event.WAITS
        news = self._running[name] = News(name, event, self.time_of_day() + breaker.seconds_left(self.clock()))
        return news


def _look(breaker: Breaker) -> _Seen:
    return _Seen(breaker.openings, breaker.open_until, breaker.half_open)
