"""Prices and exchange rates, added and read by RPC."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.billing.v1 import billing_pb2, prices_pb2
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import ADMIN, RUBLE, Room, refusal

_numbers = count()
KNOWN_SECONDS = 20


@pytest.fixture
def deployment() -> str:
    """A deployment that nobody priced."""
    return f"cloud/new-{next(_numbers)}"


def at(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def price_request(deployment: str, **fields: Any) -> prices_pb2.CreatePriceRequest:
    amounts = {"currency_code": "RUB", "input_micros": 100 * RUBLE, "output_micros": 200 * RUBLE}
    return prices_pb2.CreatePriceRequest(deployment=deployment, **{**amounts, **fields})


async def create(room: Room, request: prices_pb2.CreatePriceRequest) -> Any:
    with acting_as(ADMIN):
        return (await room.prices.CreatePrice(request)).price


async def listed(room: Room, **fields: Any) -> prices_pb2.ListPriceHistoryResponse:
    with acting_as(ADMIN):
        return await room.prices.ListPriceHistory(prices_pb2.ListPriceHistoryRequest(**fields))


async def test_a_price_that_was_added_is_charged_within_a_moment(room: Room, deployment: str) -> None:
    caller = await room.tenant(f"priced-{next(_numbers)}")
    added = await create(room, price_request(deployment, reasoning_micros=0))
    assert (added.cached_input_micros, added.HasField("cache_write_micros")) == (100 * RUBLE, False)
    assert added.HasField("reasoning_micros")
    async with asyncio.timeout(KNOWN_SECONDS):
        while deployment not in await in_force(room):
            pass
    held = await room.reserve(caller, f"r{next(_numbers)}", deployments=(deployment,))
    assert held.amount_micros == RUBLE


async def in_force(room: Room) -> set[str]:
    """What the room knows prices of."""
    return {price.deployment for price in (await room.billing.ListPrices(billing_pb2.ListPricesRequest())).prices}


async def test_prices_are_read_by_deployment_date_and_page(room: Room, deployment: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    await create(room, price_request(deployment))
    for days in (2, 1):
        later = at(now + timedelta(days=days))
        await create(room, price_request(deployment, input_micros=days, effective_time=later))
    first = await listed(room, deployment=deployment, page_size=2)
    rest = await listed(room, deployment=deployment, page_size=2, page_token=first.next_page_token)
    assert [price.input_micros for price in (*first.prices, *rest.prices)] == [100 * RUBLE, 1, 2]
    assert rest.next_page_token == ""
    tomorrow = at(now + timedelta(days=1, hours=1))
    [then] = (await listed(room, deployment=deployment, in_force_time=tomorrow)).prices
    assert then.input_micros == 1
    everything = (await listed(room)).prices
    assert [price.deployment for price in everything] == sorted(price.deployment for price in everything)
    assert (await refusal(listed(room, page_token=first.next_page_token))) == ("FIELD_INVALID", "page_token")


async def test_a_price_asked_for_twice_is_added_once(room: Room, deployment: str) -> None:
    request = price_request(deployment, request_id=str(uuid.uuid4()))
    first = await create(room, request)
    assert await create(room, request) == first
    request.input_micros += 1
    assert (await refusal(create(room, request)))[0] == "REQUEST_CONFLICT"
    assert len((await listed(room, deployment=deployment)).prices) == 1


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"deployment": ""}, "FIELD_INVALID", "deployment"),
        ({"currency_code": "rub"}, "FIELD_INVALID", "currency_code"),
        ({"currency_code": "XXX"}, "FIELD_INVALID", "currency_code"),
        ({"input_micros": -1}, "FIELD_INVALID", "input_micros"),
        ({"output_micros": 10**12 + 1}, "FIELD_INVALID", "output_micros"),
        ({"cached_input_micros": -1}, "FIELD_INVALID", "cached_input_micros"),
        ({"effective_time": at(datetime(2026, 1, 1, tzinfo=UTC))}, "FIELD_INVALID", "effective_time"),
        ({"effective_time": Timestamp(seconds=10**12)}, "FIELD_INVALID", "effective_time"),
        ({"effective_time": Timestamp(seconds=4 * 10**9, nanos=1)}, "FIELD_INVALID", "effective_time"),
        ({"request_id": "no uuid"}, "FIELD_INVALID", "request_id"),
    ],
)
async def test_a_bad_price_is_refused_and_says_why(
    room: Room, deployment: str, fields: dict[str, Any], reason: str, field: str
) -> None:
    assert await refusal(create(room, price_request(**{"deployment": deployment, **fields}))) == (reason, field)


async def test_two_prices_of_one_date_are_refused(room: Room, deployment: str) -> None:
    later = at(datetime.now(UTC) + timedelta(days=1))
    await create(room, price_request(deployment, effective_time=later))
    overlapping = price_request(deployment, effective_time=later, input_micros=1)
    assert (await refusal(create(room, overlapping)))[0] == "RESOURCE_EXISTS"


async def test_exchange_rates_are_added_and_read(room: Room) -> None:
    code, later = "KZT", at(datetime.now(UTC).replace(microsecond=0) + timedelta(days=1))
    request = prices_pb2.CreateExchangeRateRequest(
        currency_code=code, rate_micros=170_000, request_id=str(uuid.uuid4()), effective_time=later
    )
    with acting_as(ADMIN):
        first = await room.prices.CreateExchangeRate(request)
        assert await room.prices.CreateExchangeRate(request) == first
        asked = prices_pb2.ListExchangeRatesRequest(currency_code=code)
        [rate] = (await room.prices.ListExchangeRates(asked)).exchange_rates
        assert (rate.rate_micros, rate.effective_time) == (170_000, later)
        for bad in ({"currency_code": "RUB", "rate_micros": 1}, {"currency_code": code, "rate_micros": 0}):
            refused = room.prices.CreateExchangeRate(prices_pb2.CreateExchangeRateRequest(**bad))  # type: ignore[arg-type]
            assert (await refusal(refused))[0] == "FIELD_INVALID"


async def test_the_whole_book_comes_as_a_file_and_a_file_is_added_to_it(room: Room, deployment: str) -> None:
    caller = await room.tenant(f"priced-{next(_numbers)}")
    text = (
        f"prices: [{{deployment: {deployment}, currency: USD, input: '1', output: '2'}}]\n"
        f"margins: [{{tenant: {caller.tenant_id}, margin_percent: '7.25'}}]\n"
        "exchange_rates: [{currency: USD, rate: '80', effective: 2026-01-01}]"
    )
    with acting_as(ADMIN):
        assert (await room.prices.ImportPriceBook(prices_pb2.ImportPriceBookRequest(text=text))).row_count == 2
        for kind, content_type in ((prices_pb2.PRICE_BOOK_FORMAT_YAML, "application/yaml"), (2, "text/csv")):
            book = await room.prices.ExportPriceBook(prices_pb2.ExportPriceBookRequest(format=kind))  # type: ignore[arg-type]
            assert book.content_type.startswith(content_type)
            assert b"7.25" in book.data
            again = prices_pb2.ImportPriceBookRequest(text=book.data.decode(), format=kind)  # type: ignore[arg-type]
            assert (await room.prices.ImportPriceBook(again)).row_count == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "is no YAML"),
        ("prices: [{deployment: a}]", "prices.0.currency"),
        ("margins: [{tenant: nobody-there, margin_percent: '1'}]", "nobody-there"),
        ("prices: [{deployment: local/small, currency: RUB, input: '1', output: '1', effective: 2026-02-01}]", "never"),
        ("prices: [{deployment: a, currency: EUR, input: '1', output: '1'}]", "EUR has no rate"),
    ],
)
async def test_a_file_that_cannot_be_meant_adds_nothing(room: Room, text: str, says: str) -> None:
    with acting_as(ADMIN), pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.prices.ImportPriceBook(prices_pb2.ImportPriceBookRequest(text=text))
    assert error_reason(caught.value) == "FIELD_INVALID"
    assert says in str(caught.value.details())


async def test_a_file_gives_no_margin_for_what_was_billed_without(room: Room) -> None:
    caller = await room.tenant(f"priced-{next(_numbers)}")
    await room.commit(caller, await room.reserve(caller, "r1"))
    row = f"margins: [{{tenant: {caller.tenant_id}, margin_percent: '5', effective: 2026-01-01}}]"
    with acting_as(ADMIN):
        importing = room.prices.ImportPriceBook(prices_pb2.ImportPriceBookRequest(text=row))
        assert await refusal(importing) == ("FIELD_INVALID", "text")


async def test_prices_are_nobodys_business_but_of_those_who_run_the_mesh(room: Room) -> None:
    own = Identity("acme", "k", frozenset({"finance", "auditor", "developer", "service"}), "req")
    with acting_as(own):
        reading = room.prices.ListPriceHistory(prices_pb2.ListPriceHistoryRequest())
        assert (await refusal(reading))[0] == "ROLE_MISSING"
