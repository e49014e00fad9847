"""How the tokens of two questions stand for each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cache.verification.alignment import DEPTHS, DIMENSIONS, TokenVectors, alignment

CHANCE = np.random.default_rng(7)
WORDS = CHANCE.integers(-127, 128, (9, len(DEPTHS), DIMENSIONS), dtype=np.int8)
RARITIES = np.linspace(0.2, 10.2, 9, dtype=np.float32)


def tokens(*numbers: int) -> TokenVectors:
    """Some of nine words that have nothing in common."""
    return TokenVectors("b", WORDS[list(numbers)], RARITIES[list(numbers)])


def test_what_was_packed_is_unpacked() -> None:
    made = tokens(0, 4, 8)
    again = TokenVectors.unpacked(made.packed)
    assert again.basis == "b"
    assert np.array_equal(again.states, made.states)
    assert again.rarities == pytest.approx(made.rarities, abs=0.02)
    assert len(made.packed) == len(b"b\n") + 3 * 129


def test_of_several_depths_the_first_and_the_last_are_kept() -> None:
    several = CHANCE.integers(-127, 128, (5, 4, DIMENSIONS), dtype=np.int8)
    made = TokenVectors.outermost("b", several, np.ones(5, dtype=np.float32))
    assert np.array_equal(made.states, np.stack([several[:, 0], several[:, 3]], axis=1))


@settings(max_examples=50)
@given(st.binary(max_size=1000))
def test_any_bytes_at_all_can_be_unpacked(packed: bytes) -> None:
    made = TokenVectors.unpacked(packed)
    assert len(made.states) == len(made.rarities)


def test_the_same_tokens_are_matched_in_full_whatever_their_length() -> None:
    mine, yours = tokens(1, 2, 3), TokenVectors("b", WORDS[[1, 2, 3]] // 2 * 2, RARITIES[[1, 2, 3]])
    shown = alignment(mine, yours)
    for depth in DEPTHS:
        assert shown[f"tokens_covered_less_{depth}"] == pytest.approx(1, abs=0.01)
        assert shown[f"tokens_least_less_{depth}"] == pytest.approx(1, abs=0.01)


def test_a_rare_token_that_nothing_stands_for_costs_more_than_a_common_one() -> None:
    asked = tokens(1, 2)
    without_common, without_rare = alignment(asked, tokens(1, 2, 0)), alignment(asked, tokens(1, 2, 8))
    assert without_rare["tokens_worst_more_late"] > 5 * without_common["tokens_worst_more_late"]
    assert without_rare["tokens_covered_less_late"] < without_common["tokens_covered_less_late"]
    assert without_rare["tokens_covered_more_late"] == pytest.approx(1)


def test_the_same_word_in_another_place_of_the_sentence_is_seen() -> None:
    states = WORDS[[1, 2, 3]].copy()
    states[0, DEPTHS.index("late")] = WORDS[5, 1]
    shown = alignment(tokens(1, 2, 3), TokenVectors("b", states, RARITIES[[1, 2, 3]]))
    assert shown["tokens_kept_least"] < 0.5
    assert shown["tokens_least_less_early"] == pytest.approx(1)


@settings(max_examples=50)
@given(*(st.lists(st.integers(0, 8), min_size=1, max_size=12) for _ in range(2)))
def test_it_is_the_same_whichever_question_comes_first(one: list[int], other: list[int]) -> None:
    mine, yours = tokens(*one), tokens(*other)
    assert alignment(mine, yours) == pytest.approx(alignment(yours, mine), abs=2e-4)


def test_only_tokens_of_one_basis_are_comparable() -> None:
    mine = tokens(1)
    assert mine.is_comparable(tokens(2, 3))
    assert not mine.is_comparable(TokenVectors("c", mine.states, mine.rarities))
    assert not mine.is_comparable(tokens())
