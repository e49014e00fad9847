"""Amounts are integers, read exactly and rounded up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.money import MOST_MICROS, ceil_div, to_micros, to_text


@pytest.mark.parametrize(
    ("text", "micros"), [("0", 0), ("1", 1_000_000), ("0.000001", 1), ("12.5", 12_500_000), ("1e3", 1_000_000_000)]
)
def test_a_decimal_is_read_exactly(text: str, micros: int) -> None:
    assert to_micros(text) == micros


@pytest.mark.parametrize("text", ["", "x", "-1", "0.0000001", "NaN", "Infinity", "1e16", "1,5"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is (not|finer)"):
        to_micros(text)


@given(st.integers(0, MOST_MICROS))
def test_an_amount_survives_being_written(micros: int) -> None:
    assert to_micros(to_text(micros)) == micros


def test_a_negative_amount_is_written_with_its_sign() -> None:
    assert to_text(-1_500_000) == "-1.5"


@given(st.integers(0, 10**30), st.integers(1, 10**18))
def test_division_never_rounds_down(dividend: int, divisor: int) -> None:
    quotient = ceil_div(dividend, divisor)
    assert (quotient - 1) * divisor < dividend <= quotient * divisor or dividend == quotient == 0
