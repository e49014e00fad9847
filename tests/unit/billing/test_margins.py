"""What a tenant is charged above what the provider takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.corrections import Corrections
from services.billing.lease import Lease
from services.billing.ledger import LedgerRow
from services.billing.margins import LEAST_POINTS, MOST_POINTS, Margin, charged
from services.billing.price_list import as_csv, as_yaml, price_list
from services.billing.prices import Price, PriceBook, Usage

START = datetime(2026, 1, 1, tzinfo=UTC)
POINTS = st.integers(LEAST_POINTS, MOST_POINTS)
MONEY = st.integers(0, 10**15)


@pytest.mark.parametrize(
    ("taken", "points", "price"),
    [
        (1_000_000, 2000, 1_200_000),  # a fifth more
        (1_000_000, -2000, 800_000),  # a fifth less
        (1_000_000, -10_000, 0),
        (1, 1, 2),  # a started micro-unit is charged
        (1, -1, 1),
        (3, 5000, 5),  # 4.5
        (3, -5000, 2),  # 1.5
        (0, 100_000, 0),
    ],
)
def test_a_margin_is_rounded_up_to_the_micro_unit(taken: int, points: int, price: int) -> None:
    assert charged(taken, points) == price


@given(taken=MONEY, more=MONEY, points=POINTS)
def test_what_costs_more_is_never_charged_less(taken: int, more: int, points: int) -> None:
    assert 0 <= charged(taken, points) <= charged(taken + more, points)


def test_a_margin_holds_from_its_date_until_the_next() -> None:
    book = PriceBook("RUB")
    book.load([], [], [Margin("acme", 2000, START), Margin("acme", -500, START + timedelta(days=30))])
    days = [(-1, 0), (0, 2000), (29, 2000), (30, -500), (900, -500)]
    assert [(day, book.margin("acme", START + timedelta(days=day))) for day, _ in days] == days
    assert book.margin("others", START) == 0


def test_a_lease_carries_its_margin_and_older_leases_have_none() -> None:
    lease = Lease("acme", "k", "r", "m", "RUB", START, "team", 3, 70, -250)
    assert Lease.from_id(lease.to_id()) == lease
    before = "WyJhY21lIiwiayIsInIiLCJtIiwiUlVCIiwiMjAyNi0wMS0wMVQwMDowMDowMCswMDowMCIsInRlYW0iLDNd"
    assert Lease.from_id(before) == Lease("acme", "k", "r", "m", "RUB", START, "team", 3, None, 0)


async def test_a_correction_is_charged_with_the_margin_of_its_estimate() -> None:
    book = PriceBook("RUB")
    book.load([Price("d", "RUB", 1_000_000, 1_000_000, 1_000_000, START)], [], [Margin("acme", 9000, START)])
    estimate = LedgerRow(
        1, "r1", "acme", "key", "m", "d", "p", "miss", Usage(input_tokens=100, estimated=True), 120, 0, "RUB", "stop",
        START, "", (), 0, START, margin_micros=20, margin_points=2000,
    )  # fmt: skip
    added = []

    async def find(tenant_id: str, request_id: str) -> LedgerRow:
        return estimate

    async def add(correction: object) -> LedgerRow:
        added.append(correction)
        return estimate

    await Corrections(book, find=find, add=add).correct("acme", "r1", Usage(input_tokens=40))
    [correction] = added
    # 40 taken and 48 charged, of which 8 are margin: 12 less than was estimated.
    assert (correction.used_micros, correction.margin_micros) == (48, -12)  # type: ignore[attr-defined]


@pytest.mark.parametrize("table", [False, True])
def test_a_file_says_margins_in_percent_and_back(table: bool) -> None:
    margins = [Margin("acme", 1250, START), Margin("acme", -3, START + timedelta(days=1)), Margin("beta", 0, START)]
    text = (as_csv if table else as_yaml)([], [], margins)
    assert "12.5" in text
    assert price_list(text, "RUB", table=table).margins == tuple(margins)


@pytest.mark.parametrize("percent", ["-100.01", "1000.01", "0.001", "x", "NaN"])
def test_an_absurd_margin_in_a_file_is_refused(percent: str) -> None:
    with pytest.raises(ValueError, match=r"margins\.0\.margin_percent"):
        price_list(f"margins: [{{tenant: acme, margin_percent: '{percent}'}}]", "RUB")


def test_two_margins_of_one_date_are_refused(tmp_path: Path) -> None:
    row = "{tenant: acme, margin_percent: '1', effective: 2027-01-01}"
    with pytest.raises(ValueError, match="acme has two rows of the same date"):
        price_list(f"margins: [{row}, {row}]", "RUB")
