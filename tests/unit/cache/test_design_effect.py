"""How much less pairs of one topic say than as many independent ones."""

from __future__ import annotations

import numpy as np
import pytest

from tests.eval.cache.training import design_effect

TOPICS, OF_EACH = 4000, 5
TOPIC = np.repeat(np.arange(TOPICS).astype(str), OF_EACH)


def test_topics_that_are_wrong_as_a_whole_count_once() -> None:
    wrong = np.repeat(np.random.default_rng(1).random(TOPICS) < 0.1, OF_EACH)
    assert design_effect(wrong, TOPIC) == pytest.approx(OF_EACH, rel=0.01)


def test_pairs_that_are_wrong_independently_count_each() -> None:
    wrong = np.random.default_rng(1).random(TOPICS * OF_EACH) < 0.1
    assert design_effect(wrong, TOPIC) == pytest.approx(1, abs=0.05)


def test_wrong_pairs_spread_evenly_are_not_worth_more_than_independent_ones() -> None:
    wrong = np.arange(TOPICS * OF_EACH) % OF_EACH == 0
    assert design_effect(wrong, TOPIC) == 1
