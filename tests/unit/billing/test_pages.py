"""Page sizes and tokens."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.errors import FieldInvalid
from services.billing.pagination import Position, page_size, position, split, token

TIME = datetime(2026, 11, 21, 12, 30, 1, 123456, tzinfo=UTC)


@pytest.mark.parametrize(("asked", "given_size"), [(0, 100), (1, 1), (1000, 1000), (5000, 1000)])
def test_a_page_holds_a_hundred_unless_told_and_a_thousand_at_most(asked: int, given_size: int) -> None:
    assert page_size(asked) == given_size


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(FieldInvalid):
        page_size(-1)


def test_a_token_leads_back_to_its_place() -> None:
    assert position(token("usage/a", TIME, 7), "usage/a") == Position(TIME, 7)
    assert position(token("keys/a", TIME, "k"), "keys/a", str) == Position(TIME, "k")


def test_no_token_is_the_first_page() -> None:
    assert position("", "usage/a") is None


@pytest.mark.parametrize(
    "made", [token("usage/b", TIME, 7), token("usage/a", TIME, "7"), token("usage/a", TIME, "\n"), "W10", "0"]
)
def test_a_token_of_another_list_is_refused(made: str) -> None:
    with pytest.raises(FieldInvalid):
        position(made, "usage/a")


@given(st.text(min_size=1))
def test_noise_is_no_token(noise: str) -> None:
    with pytest.raises(FieldInvalid):
        position(noise, "usage/a")


def test_one_row_too_many_means_there_is_more() -> None:
    assert split([1, 2, 3], 2) == ([1, 2], 2)
    assert split([1, 2], 2) == ([1, 2], None)
    assert split([], 2) == ([], None)
