"""What a correction charges and gives back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.billing.corrections import Correction, Corrections
from services.billing.ledger import LedgerRow
from services.billing.prices import Price, PriceBook, Usage

JANUARY, JULY = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
MONEY = st.integers(0, 10**15)


def estimate(cost_micros: int, overrun_micros: int = 0, usage: Usage | None = None) -> LedgerRow:
    return LedgerRow(
        1, "r1", "acme", "key", "m", "d", "p", "miss", usage or Usage(estimated=True), cost_micros, 0, "RUB", "stop",
        JULY, "team", (), overrun_micros, JANUARY,
    )  # fmt: skip


@given(cost=MONEY, overrun=MONEY, used=MONEY, share=st.floats(0, 1))
def test_both_rows_together_say_what_was_used_and_nobody_pays_more_than_was_granted(
    cost: int, overrun: int, used: int, share: float
) -> None:
    correction = Correction(estimate(cost, overrun), Usage(), used)
    granted = int(correction.wanted_micros * share)
    more_cost, more_overrun = correction.charge(granted)
    assert cost + overrun + more_cost + more_overrun == used
    assert cost + more_cost >= 0
    assert overrun + more_overrun >= 0
    assert more_cost <= granted
    assert more_cost == 0 or used < cost or granted


@given(cost=MONEY, room=MONEY, used=MONEY)
def test_nobody_pays_more_than_the_request_may_cost(cost: int, room: int, used: int) -> None:
    correction = Correction(replace(estimate(cost), most_micros=cost + room), Usage(), used)
    more_cost, more_overrun = correction.charge(correction.wanted_micros)
    assert cost + more_cost == min(used, cost + room)
    assert more_cost + more_overrun == used - cost


async def test_it_is_priced_like_the_estimate_and_adds_what_is_missing_of_each_kind() -> None:
    book = PriceBook("RUB")
    per_million = 10_000_000
    book.load([Price("d", "RUB", per_million, 0, per_million, JANUARY), Price("d", "RUB", 1, 1, 1, JULY)], [])
    counted = Usage(input_tokens=10, output_tokens=30, image_count=2, estimated=True)
    added: list[Correction] = []

    async def find(tenant_id: str, request_id: str) -> LedgerRow:
        return estimate(400, usage=counted)

    async def add(correction: Correction) -> LedgerRow:
        added.append(correction)
        return correction.estimate

    await Corrections(book, find=find, add=add).correct("acme", "r1", Usage(input_tokens=12, output_tokens=20))
    [correction] = added
    assert correction.used_micros == 320
    assert correction.usage == Usage(input_tokens=2, output_tokens=-10)
    assert correction.request_id == "r1:correction"
