"""Money held before it is sure to be needed."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from llmmesh.billing.v1 import billing_pb2
from meshkit.errors import BudgetExceeded
from meshkit.identity import Identity
from services.gateway.exchange import Exchange
from services.gateway.peers.billing import BillingPeer, Settlement
from services.gateway.spending import Advance, Spending, held


class Books:
    """Reserves when told to, and notes what is let go."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.arrived = asyncio.Event()
        self.let_go: asyncio.Queue[Settlement] = asyncio.Queue()

    async def reserve(self) -> Spending:
        self.asked.set()
        await self.arrived.wait()
        reservation = billing_pb2.Reservation(id="r", currency_code="RUB")
        nobody_asks = cast("BillingPeer", None)
        asked = billing_pb2.CreateReservationRequest()
        return Spending(Exchange(Identity(), "m"), asked, reservation, lambda: 0, nobody_asks, self._later)

    def _later(self, settlement: Settlement) -> bool:
        self.let_go.put_nowait(settlement)
        return True


async def refused() -> Spending:
    raise BudgetExceeded("spent")


async def test_what_nobody_took_is_let_go_also_when_it_arrives_later() -> None:
    books = Books()
    with Advance(books.reserve()):
        pass
    books.arrived.set()
    async with asyncio.timeout(5):
        settlement = await books.let_go.get()
    assert (settlement.reservation_id, settlement.commit) == ("r", None)


async def test_what_was_taken_is_kept() -> None:
    books = Books()
    books.arrived.set()
    with Advance(books.reserve()) as advance:
        assert await advance.spending() is not None
    assert books.let_go.empty()


async def test_a_caller_who_leaves_while_waiting_leaves_no_hold_behind() -> None:
    books = Books()
    waiting = asyncio.Event()

    async def caller() -> None:
        with Advance(books.reserve()) as advance:
            waiting.set()
            await advance.spending()

    task = asyncio.create_task(caller())
    await waiting.wait()
    task.cancel()
    await asyncio.wait([task])
    books.arrived.set()
    async with asyncio.timeout(5):
        assert (await books.let_go.get()).commit is None


async def test_what_is_sure_to_be_needed_is_let_go_too_where_its_caller_leaves_before_it_is_there() -> None:
    books = Books()
    task = asyncio.create_task(held(books.reserve()))
    await books.asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    books.arrived.set()
    async with asyncio.timeout(5):
        assert (await books.let_go.get()).commit is None


async def test_what_is_sure_to_be_needed_is_kept_by_who_stays() -> None:
    books = Books()
    books.arrived.set()
    assert (await held(books.reserve())).currency_code == "RUB"
    assert books.let_go.empty()


async def test_a_refusal_matters_only_to_who_takes_it(caplog: Any) -> None:
    with Advance(refused()):
        pass
    with pytest.raises(BudgetExceeded), Advance(refused()) as advance:
        await advance.spending()
    assert not caplog.records
