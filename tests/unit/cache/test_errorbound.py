from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.errorbound import NEVER, ErrorBound, Outcome, level_of, upper_bound

RIGHT = [Outcome(0.9, right=True)] * 400
outcomes = st.lists(st.builds(Outcome, st.floats(0, 1), st.booleans()), max_size=60)


def bound(*calibration: Outcome, target: float = 0.01) -> ErrorBound:
    return ErrorBound(calibration, target=target)


@pytest.mark.parametrize(
    ("wrong", "judged", "expected"),
    [(0, 299, 0.00997), (0, 60, 0.0487), (1, 100, 0.0466), (5, 50, 0.1988), (0, 0, 1.0), (3, 3, 1.0)],
)
def test_the_upper_bound_is_that_of_clopper_and_pearson(wrong: int, judged: int, expected: float) -> None:
    assert upper_bound(wrong, judged, 0.95) == pytest.approx(expected, abs=2e-4)


@given(st.integers(0, 50), st.integers(1, 500))
def test_more_wrong_hits_raise_the_bound_and_more_right_ones_lower_it(wrong: int, right: int) -> None:
    judged = wrong + right
    assert upper_bound(wrong, judged, 0.95) > wrong / judged
    assert upper_bound(wrong + 1, judged + 1, 0.95) >= upper_bound(wrong, judged, 0.95)
    assert upper_bound(wrong, judged + 1, 0.95) <= upper_bound(wrong, judged, 0.95)


def test_299_judged_candidates_and_no_wrong_hit_are_enough_for_one_in_a_hundred_and_one_less_is_not() -> None:
    assert bound(*RIGHT[:299]).state("acme").threshold <= 0.9
    assert bound(*RIGHT[:298]).state("acme").threshold == NEVER


def test_pairs_that_resemble_each_other_count_as_fewer() -> None:
    told = [*RIGHT, *RIGHT, *([Outcome(0.9, right=False)] * 2)]
    halved = ErrorBound(told, target=0.02, design_effect=2.0).state("acme")
    assert halved.upper_bound == upper_bound(1, 401, 0.95) > ErrorBound(told, target=0.02).state("acme").upper_bound
    assert (halved.judged, halved.served, halved.wrong) == (802, 802, 2)


def test_reports_count_in_full_beside_pairs_that_resemble_each_other() -> None:
    errors = ErrorBound([*RIGHT, *RIGHT], target=0.02, design_effect=2.0)
    errors.observe("acme", 0.9, right=False)
    assert errors.state("acme").upper_bound == upper_bound(1, 401, 0.95)


@given(outcomes, outcomes, st.floats(0.02, 0.5))
def test_what_is_served_is_always_within_the_target(
    calibration: list[Outcome], reported: list[Outcome], target: float
) -> None:
    errors = bound(*calibration, target=target)
    for outcome in reported:
        errors.observe("acme", outcome.certainty, right=outcome.right)
    state = errors.state("acme")
    assert state.upper_bound <= target or state.threshold == NEVER
    assert state.estimate <= state.upper_bound
    served = [outcome for outcome in (*calibration, *reported) if errors.admits("acme", outcome.certainty)]
    assert (len(served), len(calibration) + len(reported)) == (state.served, state.judged)
    assert sum(not outcome.right for outcome in served) == state.wrong


@given(outcomes, st.floats(0, 1))
def test_a_wrong_report_never_lowers_the_threshold(reported: list[Outcome], certainty: float) -> None:
    errors = bound(*RIGHT, target=0.05)
    for outcome in reported:
        errors.observe("acme", outcome.certainty, right=outcome.right)
    before = errors.state("acme").threshold
    errors.observe("acme", certainty, right=False)
    # Below the threshold it is one more lookup that was not answered wrongly; at or above it, there is less to serve.
    assert errors.state("acme").threshold >= before or certainty < before


def test_a_wrong_report_tightens_the_tenants_threshold_and_nobody_elses() -> None:
    errors = bound(*RIGHT, *[Outcome(0.95, right=True)] * 400)
    assert errors.admits("acme", 0.9)
    for _ in range(9):
        errors.observe("acme", 0.91, right=False)
    assert not errors.admits("acme", 0.91)
    assert errors.admits("acme", 0.96)
    assert errors.admits("rival", 0.91)
    assert errors.state("acme").reported_wrong == 9


def test_right_reports_win_a_threshold_back() -> None:
    errors = bound(*RIGHT)
    errors.observe("acme", 0.9, right=False)
    assert not errors.admits("acme", 0.9)
    for _ in range(100):
        errors.observe("acme", 0.9, right=True)
    assert errors.admits("acme", 0.9)


def test_an_entry_that_was_wrong_serves_no_more_at_that_certainty() -> None:
    errors = bound(*RIGHT * 3)
    errors.observe("acme", 0.92, right=False, entry_id="e1")
    assert not errors.admits("acme", 0.92, entry_id="e1")
    assert errors.admits("acme", 0.97, entry_id="e1")
    assert errors.admits("acme", 0.92, entry_id="e2")
    assert errors.admits("rival", 0.92, entry_id="e1")


def test_a_stricter_target_is_never_served_more() -> None:
    errors = bound(*RIGHT, *[Outcome(0.6, right=chance > 3) for chance in range(200)])
    thresholds = [errors.state("acme", target=target).threshold for target in (0.001, 0.01, 0.05, 0.2)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert math.isinf(thresholds[0])


def test_the_true_rate_is_above_the_target_no_more_often_than_promised() -> None:
    """A verifier of known quality, calibrated many times: the threshold it gets seldom breaks the target."""
    chance = random.Random(3)
    broken = 0
    for _ in range(60):
        drawn = [chance.random() for _ in range(600)]
        errors = bound(*(Outcome(c, right=chance.random() > (1 - c) / 2) for c in drawn), target=0.05)
        threshold = errors.state("acme").threshold
        # Its rate of wrong hits at a threshold t is the integral of (1 - c) / 2 from t to 1, which is (1 - t)^2 / 4.
        broken += threshold < NEVER and (1 - threshold) ** 2 / 4 > 0.05
    assert broken <= 8  # of 60; at most 3 are expected, 9 or more come less than once in a hundred


def test_right_reports_open_nothing_that_the_calibration_set_has_ruled_out() -> None:
    """They are of what was served: of what was not they say nothing."""
    errors = bound(*RIGHT * 2, *[Outcome(0.6, right=chance % 4 > 0) for chance in range(200)])
    for _ in range(10_000):
        errors.observe("acme", 0.9, right=True)
    assert errors.state("acme").threshold == errors.state("rival").threshold > 0.6


def test_evidence_that_a_store_has_lost_is_not_unlearned() -> None:
    errors = bound(*RIGHT * 2)
    for _ in range(9):
        errors.observe("acme", 0.9, right=False)
    before = errors.state("acme")
    errors.restore("acme", {}, {level_of(0.9): 1})
    assert errors.state("acme") == before


def test_evidence_of_all_replicas_takes_the_place_of_ones_own() -> None:
    told = bound(*RIGHT, *[Outcome(0.95, right=True)] * 400)
    for _ in range(9):
        told.observe("acme", 0.91, right=False)
    taught = bound(*RIGHT, *[Outcome(0.95, right=True)] * 400)
    taught.observe("acme", 0.91, right=False)
    taught.restore("acme", {}, {level_of(0.91): 9})
    assert taught.state("acme") == told.state("acme")


def test_a_tenant_whose_reports_are_forgotten_has_the_calibration_set_alone() -> None:
    errors = bound(*RIGHT * 2)
    before = errors.state("acme")
    for tenant_id in ("acme", "rival"):
        for _ in range(9):
            errors.observe(tenant_id, 0.9, right=False, entry_id="e1")
    errors.forget("acme")
    assert errors.state("acme") == before
    assert errors.admits("acme", 0.9, entry_id="e1")
    assert errors.state("rival").reported_wrong == 9
    assert not errors.admits("rival", 0.9, entry_id="e1")
