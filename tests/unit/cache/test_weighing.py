"""How much forest and cross-encoder count beside each other."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.verification.weighing import Weighing
from services.inference.e5.crossencoder import CrossEncoder

PACKAGED = Weighing.packaged()
ESTIMATES = st.floats(0, 1)
LOG_ODDS = st.floats(-30, 30)


@given(ESTIMATES, ESTIMATES, LOG_ODDS, LOG_ODDS)
def test_who_is_surer_makes_both_surer(estimate: float, other: float, log_odds: float, others: float) -> None:
    less = PACKAGED.certainty(min(estimate, other), min(log_odds, others))
    assert 0 <= less <= PACKAGED.certainty(max(estimate, other), max(log_odds, others)) <= 1


def test_without_a_score_nothing_is_certain() -> None:
    assert PACKAGED.certainty(1.0, -math.inf) == pytest.approx(0, abs=1e-9)


def test_what_the_forest_finds_unlikely_is_not_certain_whatever_the_score() -> None:
    assert PACKAGED.certainty(PACKAGED.asked_from / 2, 30.0) == 0


def test_the_weights_belong_to_the_cross_encoder_that_is_served() -> None:
    assert CrossEncoder().name == PACKAGED.scorer


def test_weights_are_read_as_they_are_written() -> None:
    assert Weighing(**json.loads(PACKAGED.written)) == PACKAGED
