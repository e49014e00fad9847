"""When a failing deployment is left alone, and how it comes back."""

from __future__ import annotations

import pytest

from services.router.breaker import LONGEST_RETRY_AFTER_SECONDS, Breaker, BreakerPolicy, BreakerState
from services.router.failure_rate import FailureRate

PLAIN = BreakerPolicy(open_seconds=10, stage_seconds=5)
ONE_ROW_ONLY = BreakerPolicy(failures_to_open=1000, window_seconds=30, window_calls=10, failure_percent_to_open=50)


def complete(breaker: Breaker, now: float, times: int = 1) -> None:
    """Let calls through and answer them whole."""
    for _ in range(times):
        call = breaker.begin(now)
        assert call is not None
        breaker.answered(call)
        breaker.completed(call, now)


def fail(breaker: Breaker, now: float, times: int = 1, retry_after: float | None = None) -> None:
    """Let calls through and fail them."""
    for _ in range(times):
        call = breaker.begin(now)
        assert call is not None
        breaker.failed(call, now, retry_after)


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(PLAIN)


@pytest.fixture
def opened(breaker: Breaker) -> Breaker:
    """Opened at 0."""
    fail(breaker, 0, times=3)
    return breaker


def test_it_opens_after_three_failures_in_a_row(breaker):
    fail(breaker, 0, times=2)
    assert breaker.state(0) is BreakerState.CLOSED
    fail(breaker, 0)
    assert breaker.state(9.9) is BreakerState.OPEN
    assert breaker.begin(9.9) is None
    assert breaker.seconds_left(4) == 6


def test_a_whole_answer_between_failures_starts_the_count_again(breaker):
    for _ in range(5):
        fail(breaker, 0, times=2)
        complete(breaker, 0)
    assert breaker.state(0) is BreakerState.CLOSED


def test_answers_that_always_break_off_open_it(breaker):
    for _ in range(3):
        call = breaker.begin(0)
        breaker.answered(call)
        breaker.failed(call, 0)
    assert breaker.begin(1) is None


def test_it_opens_when_half_of_many_calls_fail_though_never_in_a_row():
    breaker = Breaker(ONE_ROW_ONLY)
    for _ in range(4):
        complete(breaker, 0)
        fail(breaker, 0)
    complete(breaker, 0)
    assert breaker.state(0) is BreakerState.CLOSED, "nine calls tell no rate"
    fail(breaker, 0)
    assert breaker.state(0) is BreakerState.OPEN


def test_failures_of_long_ago_are_forgotten():
    breaker = Breaker(ONE_ROW_ONLY)
    fail(breaker, 0, times=9)
    complete(breaker, 31, times=8)
    fail(breaker, 31, times=2)
    assert breaker.state(31) is BreakerState.CLOSED


def test_the_rate_counts_no_less_than_half_the_window_and_no_more_than_all():
    rate = FailureRate(30)
    rate.count(14, failed=True)
    rate.count(16, failed=False)
    assert rate.counted(29) == (2, 1)
    assert rate.counted(30) == (1, 0)
    assert rate.counted(100) == (0, 0)


def test_chance_makes_the_pause_longer_never_shorter():
    breaker = Breaker(BreakerPolicy(open_seconds=10, open_jitter=0.2), chance=lambda: 0.5)
    fail(breaker, 0, times=3)
    assert breaker.seconds_left(0) == 11


def test_after_the_pause_one_caller_at_a_time_waits_for_a_first_token(opened):
    probe = opened.begin(10)
    assert opened.state(10) is BreakerState.HALF_OPEN
    assert opened.begin(10) is None
    opened.answered(probe)
    assert opened.begin(10) is not None


def test_no_more_probes_are_under_way_than_are_needed(opened):
    for _ in range(3):
        opened.answered(opened.begin(10))
    assert opened.begin(10) is None


def test_three_whole_answers_close_it(opened):
    complete(opened, 10, times=2)
    assert opened.state(10) is BreakerState.HALF_OPEN
    complete(opened, 10)
    assert opened.state(10) is BreakerState.RETURNING


def test_a_failed_probe_opens_it_again_at_once(opened):
    complete(opened, 10, times=2)
    fail(opened, 10)
    assert opened.begin(19.9) is None
    complete(opened, 20, times=2)
    assert opened.state(20) is BreakerState.HALF_OPEN, "the count of good answers began again"


def test_a_probe_whose_caller_left_makes_room_for_the_next(opened):
    opened.abandoned(opened.begin(10))
    assert opened.begin(10) is not None


def test_the_share_comes_back_in_stages(opened):
    complete(opened, 10, times=3)
    shares = []
    for now in (11, 15, 16, 20, 21):
        shares.append(opened.share_percent(now))
        complete(opened, now, times=3)
    assert shares == [10, 10, 50, 50, 100]
    assert opened.state(21) is BreakerState.CLOSED


def test_a_stage_lasts_until_there_were_enough_answers(opened):
    complete(opened, 10, times=3)
    complete(opened, 1000, times=2)
    assert opened.share_percent(1000) == 10
    complete(opened, 1000)
    assert opened.share_percent(1000) == 50


@pytest.mark.parametrize(("percent", "led"), [(10, 10), (50, 50), (33, 33)])
def test_a_share_is_that_many_of_a_hundred_requests_evenly_spread(percent, led):
    breaker = Breaker(BreakerPolicy(return_percents=(percent,)))
    fail(breaker, 0, times=3)
    complete(breaker, 60, times=3)
    leading = [breaker.leads() for _ in range(100)]
    assert sum(leading) == led
    assert sum(leading[:50]) in (led // 2, led // 2 + 1)


def test_failures_during_the_return_open_it_again(opened):
    complete(opened, 10, times=3)
    fail(opened, 11, times=3)
    assert opened.state(11) is BreakerState.OPEN
    complete(opened, 60, times=3)
    assert opened.share_percent(60) == 10, "the stages begin again"


def test_without_stages_it_gets_everything_back_at_once():
    breaker = Breaker(BreakerPolicy(return_percents=(), successes_to_close=1))
    fail(breaker, 0, times=3)
    complete(breaker, 60)
    assert (breaker.state(60), breaker.share_percent(60)) == (BreakerState.CLOSED, 100)


def test_retry_after_is_waited_for_from_the_first_failure_on_but_opens_nothing(breaker):
    fail(breaker, 0, retry_after=42)
    assert breaker.begin(41) is None
    assert breaker.state(42) is BreakerState.CLOSED
    assert breaker.share_percent(42) == 100


def test_retry_after_is_believed_up_to_five_minutes(breaker):
    fail(breaker, 0, retry_after=86_400)
    assert breaker.seconds_left(0) == LONGEST_RETRY_AFTER_SECONDS


def test_a_later_shorter_pause_never_cuts_an_earlier_longer_one(breaker):
    calls = [breaker.begin(0) for _ in range(2)]
    breaker.failed(calls[0], 0, 60)
    breaker.failed(calls[1], 1, 2)
    assert breaker.seconds_left(1) == 59


def test_an_answer_to_a_call_from_before_the_opening_proves_nothing(breaker):
    early = [breaker.begin(0) for _ in range(5)]
    fail(breaker, 0, times=3)
    for call in early:
        breaker.answered(call)
        breaker.completed(call, 10)
    assert breaker.state(10) is BreakerState.HALF_OPEN


def test_a_failure_of_a_call_from_before_the_opening_does_not_prolong_it_unless_asked_to(breaker):
    early = [breaker.begin(0) for _ in range(2)]
    fail(breaker, 0, times=3)
    breaker.failed(early[0], 9)
    assert breaker.seconds_left(9) == 1
    breaker.failed(early[1], 9, 30)
    assert breaker.seconds_left(9) == 30


def test_failed_health_checks_in_a_row_open_it(breaker):
    for healthy in (False, False, True, False, False):
        breaker.checked(healthy=healthy, now=0)
    assert breaker.state(0) is BreakerState.CLOSED
    breaker.checked(healthy=False, now=0)
    assert breaker.state(0) is BreakerState.OPEN


def test_a_failed_health_check_spares_the_next_caller_the_probe(opened):
    opened.checked(healthy=False, now=9)
    assert opened.seconds_left(9) == 10
    opened.checked(healthy=True, now=19)
    assert opened.state(19) is BreakerState.HALF_OPEN, "only whole answers close it"


def test_what_other_routers_saw_counts(breaker):
    breaker.learn_opening(30, now=0)
    assert breaker.begin(29) is None
    assert breaker.state(30) is BreakerState.HALF_OPEN
    breaker.learn_return(opened_before=31, now=31)
    assert breaker.state(31) is BreakerState.RETURNING


def test_good_news_from_before_our_own_opening_is_old_news(opened):
    opened.learn_return(opened_before=-1, now=10)
    assert opened.state(10) is BreakerState.HALF_OPEN


def test_a_wait_that_another_router_was_asked_for_is_kept(breaker):
    breaker.learn_wait(5, now=0)
    assert breaker.begin(4) is None
    assert breaker.state(5) is BreakerState.CLOSED
