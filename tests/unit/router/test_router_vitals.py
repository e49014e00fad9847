"""How a deployment has been answering lately."""

from __future__ import annotations

import pytest

from services.router.vitals import KEPT_CALLS, KEPT_SECONDS, Ending, Vitals


@pytest.fixture
def vitals() -> Vitals:
    return Vitals()


def test_nothing_is_known_before_the_first_call(vitals):
    figures = vitals.figures(0)
    assert (figures.requests, figures.recent, figures.error_rate) == (0, 0, 0)
    assert figures.first_token_p50_seconds is figures.first_token_p95_seconds is figures.tokens_per_second is None
    assert vitals.idle_seconds(0) == float("inf")


def test_figures_are_those_of_the_calls(vitals):
    for number in range(100):
        vitals.note(Ending(number, failed=number % 4 == 0, first_token_seconds=number / 100, tokens_per_second=number))
    figures = vitals.figures(100)
    assert (figures.requests, figures.recent, figures.error_rate) == (100, 100, 0.25)
    assert (figures.first_token_p50_seconds, figures.first_token_p95_seconds) == (0.5, 0.95)
    assert figures.tokens_per_second == 50
    assert vitals.idle_seconds(100) == 1


def test_calls_of_long_ago_and_beyond_the_last_ones_are_forgotten_but_counted(vitals):
    for _ in range(KEPT_CALLS):
        vitals.note(Ending(0, failed=True))
    for _ in range(KEPT_CALLS - 1):
        vitals.note(Ending(1))
    assert vitals.figures(2).error_rate == 1 / KEPT_CALLS
    assert vitals.figures(1 + KEPT_SECONDS).error_rate == 0
    assert vitals.figures(2 + KEPT_SECONDS).recent == 0
    assert vitals.requests == 2 * KEPT_CALLS - 1


def test_a_call_that_was_given_up_before_its_first_token_tells_nothing(vitals):
    vitals.note(Ending(1, first_token_seconds=0.5))
    vitals.note(Ending(50))
    assert vitals.idle_seconds(60) == 59
