"""Who may have the answer that somebody else has just got."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from meshkit.identity import Identity
from services.gateway.exchange import Event, Exchange
from services.gateway.flights import Flight, Flights, Found, Hit

AWAY = Found(unavailable=True)
HIT = Hit(cache_pb2.CachedAnswer(), gateway_pb2.CACHE_STATUS_EXACT)


async def board(flights: Flights, found: Found, asked_at: float, *, hears: bool = False) -> Flight:
    async def nobody_else(seconds: float) -> Found:
        return found

    return await flights.board("question", found, nobody_else, hears=hears, asked_at=asked_at)


async def landed() -> Flights:
    flights = Flights(here_seconds=1, elsewhere_seconds=1)
    with await board(flights, Found(), time.perf_counter()) as leader:
        leader.land(HIT)
    return flights


async def test_who_asked_before_the_answer_was_there_has_it_though_the_cache_is_away() -> None:
    asked_at = time.perf_counter()
    assert (await board(await landed(), AWAY, asked_at)).hit is HIT


async def test_who_asks_later_is_never_given_what_may_have_been_purged_meanwhile() -> None:
    flights = await landed()
    assert (await board(flights, AWAY, time.perf_counter())).hit is None


async def test_who_reaches_the_cache_believes_the_cache() -> None:
    asked_at = time.perf_counter()
    assert (await board(await landed(), Found(), asked_at)).hit is None


async def test_who_follows_gives_back_a_lease_of_its_own_and_never_the_leaders() -> None:
    flights = Flights(here_seconds=1, elsewhere_seconds=1)
    with await board(flights, Found(lease_id="first"), time.perf_counter()) as leader:
        shared, own = [
            asyncio.create_task(board(flights, Found(lease_id=lease_id), time.perf_counter()))
            for lease_id in ("first", "second")
        ]
        await asyncio.sleep(0)
        leader.land(HIT)
    assert [(each.hit, each.lease_id) for each in (await shared, await own)] == [(HIT, ""), (HIT, "second")]


async def test_an_answer_of_the_same_process_is_waited_for_however_soon_leases_end() -> None:
    flights = Flights(here_seconds=60, elsewhere_seconds=0)
    with await board(flights, Found(), time.perf_counter()) as leader:
        follower = asyncio.create_task(board(flights, Found(), time.perf_counter()))
        await asyncio.sleep(0)
        leader.land(HIT)
    assert (await follower).hit is HIT


async def test_another_process_is_waited_for_as_long_as_its_lease_lasts() -> None:
    waits: list[float] = []

    async def elsewhere(seconds: float) -> Found:
        waits.append(seconds)
        return Found(HIT.answer)

    flights = Flights(here_seconds=60, elsewhere_seconds=30)
    leased = Found(leased_elsewhere=True)
    flight = await flights.board("question", leased, elsewhere, hears=False, asked_at=time.perf_counter())
    assert (waits, flight.hit) == ([30], HIT)


async def one_word() -> AsyncGenerator[Event, None]:
    yield chat_pb2.Delta(text="one")


async def test_a_stream_without_a_hit_in_the_end_is_had_by_those_who_hear_it_and_by_nobody_else() -> None:
    flights = Flights(here_seconds=60, elsewhere_seconds=0)
    with await board(flights, Found(), time.perf_counter()) as leader:
        spoken = leader.spoken(one_word(), Exchange(Identity(), "m"))
        await anext(spoken)
        whole = asyncio.create_task(board(flights, Found(), time.perf_counter()))
        await asyncio.sleep(0)
        hearing = await board(flights, Found(), time.perf_counter(), hears=True)
    alone = await whole
    assert (alone.hit, alone.live, alone.leads) == (None, None, False)
    assert hearing.live is leader.live is not None
    await spoken.aclose()
