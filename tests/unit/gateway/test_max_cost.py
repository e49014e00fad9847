"""What callers say a request may cost."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest

from meshkit.errors import FieldInvalid
from services.gateway.cache_control import AS_ALLOWED
from services.gateway.max_cost import HEADER, checked_max_cost, checked_micros, least, max_cost_in_headers
from services.gateway.openai.chat_request import decode_chat_request


@pytest.mark.parametrize(
    ("value", "micros"), [("0.05", 50_000), (" 2 ", 2_000_000), ("0", 0), ("1e-6", 1), ("1000000000", 10**15)]
)
def test_a_header_says_it_in_units(value: str, micros: int) -> None:
    assert max_cost_in_headers([("user-agent", "x"), (HEADER, value)]) == micros


@pytest.mark.parametrize(
    "value", ["", "-1", "0.0000001", "1000000001", "nan", "inf", "0.05 RUB", "5%", "9" * 400, "1e999999", "1e-999999"]
)
def test_a_header_that_says_something_else_is_named(value: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        max_cost_in_headers([(HEADER, value)])
    assert caught.value.metadata["field"] == HEADER


def test_without_a_header_there_is_no_limit_and_of_two_the_least_counts() -> None:
    assert max_cost_in_headers(None) is None
    assert max_cost_in_headers([(HEADER, "2"), (HEADER, "0.5")]) == 500_000
    assert (least(None, None), least(None, 7, 3), least(0, None)) == (None, 3, 0)


@pytest.mark.parametrize("micros", [-1, 10**15 + 1])
def test_micro_units_out_of_range_are_named(micros: int) -> None:
    with pytest.raises(FieldInvalid, match="max_cost_micros"):
        checked_micros("max_cost_micros", micros)


def test_no_amount_is_no_limit() -> None:
    assert checked_max_cost("x", None) is None
    assert checked_max_cost("x", Decimal("0.000001")) == 1


def decoded(max_cost: object, in_header: int | None = None) -> int | None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "llmmesh": {"max_cost": max_cost}}
    asked = decode_chat_request(orjson.dumps(body), default_model="", cache=AS_ALLOWED, max_cost_micros=in_header)
    return asked.question.max_cost_micros


def test_the_body_and_the_header_are_both_kept() -> None:
    assert decoded(0.1) == decoded("0.1") == 100_000
    assert decoded(0.1, in_header=70_000) == 70_000
    assert decoded(None, in_header=70_000) == 70_000
    assert decoded(0.05, in_header=70_000) == 50_000


@pytest.mark.parametrize("amount", [-0.1, True, "cheap", [1], 1e-9, "NaN", 1e300])
def test_a_body_that_says_something_else_is_named(amount: object) -> None:
    with pytest.raises(FieldInvalid) as caught:
        decoded(amount)
    assert caught.value.metadata["field"] == "llmmesh.max_cost"
