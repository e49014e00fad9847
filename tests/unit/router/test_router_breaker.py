"""When a failing deployment is left alone."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.router.breaker import LONGEST_RETRY_AFTER_SECONDS, Breaker


def test_it_opens_after_three_failures_in_a_row():
    breaker = Breaker()
    for _ in range(2):
        assert breaker.begin(0)
        breaker.failed(0)
    assert breaker.begin(0)
    breaker.failed(0)
    assert not breaker.begin(9.9)
    assert breaker.seconds_left(4) == 6


def test_a_whole_answer_between_failures_starts_the_count_again():
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(0)
        breaker.failed(0)
        breaker.answered()
        breaker.completed()
    assert breaker.begin(0)


def test_answers_that_always_break_off_open_it():
    breaker = Breaker()
    for _ in range(3):
        assert breaker.begin(0)
        breaker.answered()
        breaker.failed(0)
    assert not breaker.begin(1)


def test_after_the_pause_one_call_finds_out():
    breaker = _opened()
    assert breaker.begin(10)
    assert not breaker.begin(10)
    breaker.answered()
    assert breaker.begin(10)
    assert breaker.begin(10)


def test_a_failed_probe_opens_it_again_at_once():
    breaker = _opened()
    assert breaker.begin(10)
    breaker.failed(10)
    assert not breaker.begin(19.9)
    assert breaker.begin(20)


def test_an_abandoned_probe_lets_the_next_caller_find_out():
    breaker = _opened()
    assert breaker.begin(10)
    breaker.abandoned()
    assert breaker.begin(10)


def test_retry_after_opens_it_at_the_first_failure_for_as_long_as_it_says():
    breaker = Breaker()
    assert breaker.begin(0)
    breaker.failed(0, retry_after_seconds=42)
    assert not breaker.begin(41)
    assert breaker.begin(42)


def test_retry_after_is_believed_up_to_five_minutes():
    breaker = Breaker()
    breaker.failed(0, retry_after_seconds=86_400)
    assert breaker.seconds_left(0) == LONGEST_RETRY_AFTER_SECONDS


def test_a_later_shorter_pause_never_cuts_an_earlier_longer_one():
    breaker = Breaker()
    breaker.failed(0, retry_after_seconds=60)
    breaker.failed(1, retry_after_seconds=2)
    assert breaker.seconds_left(1) == 59


def test_an_answer_to_an_earlier_call_does_not_end_the_pause():
    breaker = Breaker()
    assert breaker.begin(0)
    assert breaker.begin(0)
    breaker.failed(1, retry_after_seconds=60)
    breaker.answered()
    breaker.completed()
    assert not breaker.begin(60)


def _opened() -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        breaker.failed(0)
    return breaker


class AnyOrder(RuleBasedStateMachine):
    """Whatever calls do, in whatever order, the breaker keeps its promises."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker()
        self.calls = 0
        self.promised_until = 0.0

    @rule(seconds=st.floats(0, 400))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def somebody_calls(self) -> None:
        if self.breaker.begin(self.now):
            assert self.now >= self.promised_until
            self.calls += 1

    @rule(retry_after=st.none() | st.floats(0, 300))
    def a_call_fails(self, retry_after: float | None) -> None:
        if self.calls:
            self.calls -= 1
            self.breaker.failed(self.now, retry_after)
            self.promised_until = max(self.promised_until, self.now + (retry_after or 0))

    @rule()
    def a_call_answers(self) -> None:
        if self.calls:
            self.calls -= 1
            self.breaker.answered()
            self.breaker.completed()

    @rule()
    def a_caller_leaves(self) -> None:
        if self.calls:
            self.calls -= 1
            self.breaker.abandoned()

    @invariant()
    def it_always_lets_a_call_through_in_the_end(self) -> None:
        assert self.breaker.seconds_left(self.now) <= LONGEST_RETRY_AFTER_SECONDS
        if not self.calls:
            assert not self.breaker.probing


TestAnyOrder = AnyOrder.TestCase
