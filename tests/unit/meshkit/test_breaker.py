from __future__ import annotations

import pytest

from meshkit.breaker import Breaker


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(first_pause_seconds=1, longest_pause_seconds=4, clock=clock)


def test_it_admits_everything_until_the_first_failure(breaker: Breaker) -> None:
    assert all(breaker.admits() for _ in range(5))
    breaker.failed(was_trial=False)
    assert not breaker.admits()


def test_after_the_pause_it_admits_exactly_one_trial(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_trial=False)
    clock.now = 1
    assert [breaker.admits() for _ in range(3)] == [True, False, False]


def test_a_trial_that_succeeds_closes_it(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_trial=False)
    clock.now = 1
    assert breaker.admits()
    breaker.succeeded()
    assert all(breaker.admits() for _ in range(3))
    assert not breaker.is_open


def test_each_failed_trial_doubles_the_pause_up_to_the_longest(breaker: Breaker, clock: Clock) -> None:
    pauses = []
    breaker.failed(was_trial=False)
    for _ in range(4):
        started = clock.now
        while not breaker.admits():
            clock.now += 0.5
        pauses.append(clock.now - started)
        breaker.failed(was_trial=True)
    assert pauses == [1, 2, 4, 4]


def test_an_abandoned_trial_leaves_room_for_another(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_trial=False)
    clock.now = 1
    assert breaker.admits()
    breaker.abandoned(was_trial=True)
    assert breaker.admits()


def test_what_was_asked_before_it_opened_and_fails_too_makes_the_pause_no_longer(
    breaker: Breaker, clock: Clock
) -> None:
    for _ in range(6):
        breaker.failed(was_trial=False)
    clock.now = 1
    assert breaker.admits()


def test_what_was_asked_before_it_opened_does_not_end_the_trial(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_trial=False)
    clock.now = 1
    assert breaker.admits()
    breaker.failed(was_trial=False)
    breaker.abandoned(was_trial=False)
    assert breaker.is_on_trial
    assert not breaker.admits()
