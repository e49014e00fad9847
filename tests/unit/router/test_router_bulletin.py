"""What routers tell each other of deployments."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from services.router.breaker import BreakerPolicy, BreakerState
from services.router.bulletin import Bulletin, Event, News
from services.router.standing import Standings


@dataclass
class Router:
    """A router's breakers, of deployments "a" and "b"; its own clock began some time before the day's did."""

    offset: float
    now: float = 0.0
    standings: Standings = field(default_factory=lambda: Standings(BreakerPolicy(open_jitter=0)))

    def __post_init__(self) -> None:
        for name in "ab":
            assert self.standings[name]
        self.bulletin = Bulletin(self.standings, lambda: self.now + self.offset, lambda: self.now + 1_000_000)

    def state(self, name: str = "a") -> BreakerState:
        return self.standings[name].breaker.state(self.now + self.offset)

    def call(self, *, fails: bool, name: str = "a", retry_after: float | None = None) -> None:
        """Call once."""
        breaker, now = self.standings[name].breaker, self.now + self.offset
        call = breaker.begin(now)
        assert call
        if fails:
            breaker.failed(call, now, retry_after)
        else:
            breaker.completed(call, now)

    def open(self) -> None:
        """Fail three times."""
        for _ in range(3):
            self.call(fails=True)


@pytest.fixture
def ours() -> Router:
    return Router(offset=500)


@pytest.fixture
def theirs() -> Router:
    return Router(offset=90)


def tell(teller: Router, hearer: Router) -> list[Event]:
    """Hand over what is new."""
    news = teller.bulletin.fresh()
    for each in news:
        hearer.bulletin.hear(each)
    return [each.event for each in news]


def test_nothing_is_told_while_nothing_happens(ours):
    ours.call(fails=False)
    ours.call(fails=True)
    assert ours.bulletin.fresh() == ours.bulletin.running() == []


def test_an_opening_counts_elsewhere_until_the_same_moment(ours, theirs):
    ours.open()
    assert tell(ours, theirs) == [Event.OPENED]
    assert theirs.state() is BreakerState.OPEN
    theirs.now = 9.9
    assert theirs.state() is BreakerState.OPEN
    theirs.now = 10
    assert theirs.state() is BreakerState.HALF_OPEN
    assert theirs.state("b") is BreakerState.CLOSED


def test_a_return_counts_elsewhere(ours, theirs):
    ours.open()
    tell(ours, theirs)
    ours.now = theirs.now = 10
    for _ in range(3):
        ours.call(fails=False)
    assert tell(ours, theirs) == [Event.RETURNED]
    assert theirs.state() is BreakerState.RETURNING


def test_a_return_from_before_the_hearers_own_opening_does_not_count(ours, theirs):
    theirs.now = 5
    theirs.open()
    theirs.bulletin.hear(News("a", Event.RETURNED, 1_000_004))
    theirs.now = 15
    assert theirs.state() is BreakerState.HALF_OPEN


def test_a_wait_counts_elsewhere_but_opens_nothing(ours, theirs):
    ours.call(fails=True, retry_after=30)
    assert tell(ours, theirs) == [Event.WAITS]
    assert theirs.state() is BreakerState.OPEN
    theirs.now = 30
    assert theirs.state() is BreakerState.CLOSED


def test_what_was_heard_is_never_told_again(ours, theirs):
    ours.open()
    tell(ours, theirs)
    assert theirs.bulletin.fresh() == theirs.bulletin.running() == []


def test_what_still_holds_is_told_again_and_changes_nothing_where_it_is_known(ours, theirs):
    ours.open()
    tell(ours, theirs)
    (again,) = ours.bulletin.running()
    openings = theirs.standings["a"].breaker.openings
    theirs.bulletin.hear(again)
    assert (theirs.standings["a"].breaker.openings, theirs.state()) == (openings, BreakerState.OPEN)
    ours.now = 11
    assert ours.bulletin.running() == []


def test_an_opening_that_is_over_is_old_news(ours, theirs):
    ours.open()
    theirs.now = 20
    tell(ours, theirs)
    assert theirs.state() is BreakerState.CLOSED


def test_news_of_deployments_unknown_here_are_passed_over(theirs):
    theirs.bulletin.hear(News("c", Event.OPENED, 1_000_050))
    assert "c" not in theirs.standings
