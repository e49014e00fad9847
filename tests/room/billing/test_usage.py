"""Cache hits written down, the ledger and its sums read back, prices, budgets seen."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llmmesh.billing.v1 import billing_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import ADMIN, RUBLE, TOKENS_PER_RUBLE, Room

_numbers = count()


@pytest.fixture
async def caller(room: Room) -> Identity:
    """A developer of a new tenant."""
    return await room.tenant(f"tenant-{next(_numbers)}")


def hit(caller: Identity, request_id: str, **fields: object) -> billing_pb2.UsageRecord:
    """A cache hit that saved a ruble, unless told otherwise."""
    usual: dict[str, object] = {
        "tenant_id": caller.tenant_id,
        "key_id": caller.key_id,
        "model": "small",
        "deployment": "local/small",
        "provider": "local",
        "cache_status": "exact",
        "usage": chat_pb2.TokenUsage(input_tokens=TOKENS_PER_RUBLE),
        "finish_reason": chat_pb2.FINISH_REASON_STOP,
    }
    return billing_pb2.UsageRecord(request_id=request_id, **{**usual, **fields})  # type: ignore[arg-type]


async def record(room: Room, *records: billing_pb2.UsageRecord) -> None:
    await room.billing.RecordUsage(billing_pb2.RecordUsageRequest(records=records))


async def field_refused(call: Awaitable[object]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_info(caught.value)
    assert info
    assert info.reason == "FIELD_INVALID"
    return str(info.metadata["field"])


def timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


async def test_a_cache_hit_costs_nothing_and_says_what_it_saved(room: Room, caller: Identity) -> None:
    answered = timestamp(datetime.now(UTC) - timedelta(minutes=1))
    await record(room, hit(caller, "h1", create_time=answered, deployment="cloud/large", cache_status="semantic"))
    [row] = await room.usage(caller)
    assert (row.cost_micros, row.saved_micros, row.currency_code) == (0, 8 * RUBLE, "RUB")
    assert (row.cache_status, row.create_time) == ("semantic", answered)
    assert (await room.budget(caller)).spent_micros == 0


async def test_hits_with_a_known_request_id_are_skipped(room: Room, caller: Identity) -> None:
    await room.commit(caller, await room.reserve(caller, "billed"))
    await record(room, hit(caller, "h1"), hit(caller, "h1"), hit(caller, "billed"))
    await record(room, hit(caller, "h1", model="another"))
    assert sorted((row.request_id, row.model) for row in await room.usage(caller)) == [
        ("billed", "small"), ("h1", "small"),
    ]  # fmt: skip


async def test_a_hit_of_a_deployment_without_a_price_claims_no_saving(room: Room, caller: Identity) -> None:
    await record(room, hit(caller, "h1", deployment="nobody/knows"))
    [row] = await room.usage(caller)
    assert row.saved_micros == 0


async def test_a_clock_that_is_ahead_does_not_reach_into_the_future(room: Room, caller: Identity) -> None:
    await record(room, hit(caller, "h1", create_time=timestamp(datetime.now(UTC) + timedelta(days=400))))
    [row] = await room.usage(caller)
    assert row.create_time.ToDatetime(UTC) <= datetime.now(UTC) + timedelta(minutes=1)


async def test_a_thousand_hits_are_written_at_once_and_more_are_refused(room: Room, caller: Identity) -> None:
    hits = [hit(caller, f"h{number}") for number in range(1001)]
    assert await field_refused(record(room, *hits)) == "records"
    await record(room, *hits[:1000])
    with acting_as(ADMIN):
        summary = await room.billing.GetUsageSummary(billing_pb2.GetUsageSummaryRequest(tenant_id=caller.tenant_id))
    assert (summary.total.request_count, summary.total.saved_micros) == (1000, 1000 * RUBLE)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("records[1].request_id", {"request_id": ""}),
        ("records[1].tenant_id", {"tenant_id": "Nobody"}),
        ("records[1].tenant_id", {"tenant_id": "no-such-tenant"}),
        ("records[1].model", {"model": ""}),
        ("records[1].deployment", {"deployment": "a\0"}),
        ("records[1].cache_status", {"cache_status": "miss"}),
        ("records[1].cost_micros", {"cost_micros": 1}),
        ("records[1].usage.input_tokens", {"usage": chat_pb2.TokenUsage(input_tokens=-1)}),
        ("records[1].finish_reason", {"finish_reason": 99}),
    ],
)
async def test_a_bad_field_of_a_hit_is_named_and_nothing_is_written(
    room: Room, caller: Identity, field: str, fields: dict[str, object]
) -> None:
    bad = hit(caller, "h2")
    bad.MergeFrom(billing_pb2.UsageRecord(**fields))  # type: ignore[arg-type]
    if fields == {"request_id": ""}:
        bad.request_id = ""
    if fields == {"model": ""}:
        bad.model = ""
    assert await field_refused(record(room, hit(caller, "h1"), bad)) == field
    assert await room.usage(caller) == []


async def test_the_ledger_is_read_newest_first_in_pages(room: Room, caller: Identity) -> None:
    now = datetime.now(UTC)
    ages = {f"h{age}": timestamp(now - timedelta(minutes=age)) for age in (3, 1, 5, 2, 4)}
    await record(room, *(hit(caller, name, create_time=time) for name, time in ages.items()))
    listed: list[str] = []
    token = ""
    for size in (2, 2, 1):
        request = billing_pb2.ListUsageRecordsRequest(tenant_id=caller.tenant_id, page_size=2, page_token=token)
        with acting_as(ADMIN):
            page = await room.billing.ListUsageRecords(request)
        assert len(page.records) == size
        listed += [row.request_id for row in page.records]
        token = page.next_page_token
    assert (listed, token) == (["h1", "h2", "h3", "h4", "h5"], "")


async def test_ledger_rows_are_found_by_time_team_key_model_and_deployment(room: Room, caller: Identity) -> None:
    long_ago, lately = datetime.now(UTC) - timedelta(hours=2), Timestamp()
    lately.FromDatetime(long_ago + timedelta(hours=1))
    with acting_as(ADMIN):
        request = tenant_pb2.CreateKeyRequest(tenant_id=caller.tenant_id, team_id="red")
        key = (await room.tenants.CreateKey(request)).key
    old = hit(caller, "h1", model="other")
    old.create_time.FromDatetime(long_ago)
    await record(room, old, hit(caller, "h2", deployment="cloud/large"), hit(caller, "h3", key_id=key.id))

    async def found(**fields: Any) -> list[str]:
        request = billing_pb2.ListUsageRecordsRequest(tenant_id=caller.tenant_id, **fields)
        with acting_as(ADMIN):
            return sorted(row.request_id for row in (await room.billing.ListUsageRecords(request)).records)

    assert await found(start_time=lately) == ["h2", "h3"]
    assert await found(end_time=lately) == await found(model="other") == ["h1"]
    assert await found(team_id="red") == await found(key_id=key.id) == ["h3"]
    assert await found(deployment="cloud/large", model="small") == ["h2"]
    assert await found(team_id="re%") == []
    request = billing_pb2.ListUsageRecordsRequest(tenant_id=caller.tenant_id, page_size=1)
    with acting_as(ADMIN):
        token = (await room.billing.ListUsageRecords(request)).next_page_token
    assert await field_refused(found(model="small", page_token=token)) == "page_token"


async def test_a_page_token_of_another_tenant_is_refused(room: Room, caller: Identity) -> None:
    other = await room.tenant(f"{caller.tenant_id}-other")
    await record(room, hit(other, "h1"), hit(other, "h2"))
    with acting_as(ADMIN):
        page = await room.billing.ListUsageRecords(
            billing_pb2.ListUsageRecordsRequest(tenant_id=other.tenant_id, page_size=1)
        )
        request = billing_pb2.ListUsageRecordsRequest(tenant_id=caller.tenant_id, page_token=page.next_page_token)
        assert await field_refused(room.billing.ListUsageRecords(request)) == "page_token"


async def test_the_summary_adds_up_by_provider_and_by_model(room: Room, caller: Identity) -> None:
    await room.commit(caller, await room.reserve(caller, "r1"), input_tokens=5, output_tokens=5)
    large = await room.reserve(caller, "r2", deployments=("cloud/large",))
    await room.commit(caller, large, "cloud/large", input_tokens=1000)
    await record(room, hit(caller, "h1"), hit(caller, "h2", model="other", provider="cloud"))
    with acting_as(ADMIN):
        summary = await room.billing.GetUsageSummary(billing_pb2.GetUsageSummaryRequest(tenant_id=caller.tenant_id))
    total = summary.total
    assert (total.request_count, total.cached_count, total.token_count) == (4, 2, 1010)
    assert (total.cost_micros, total.saved_micros, total.currency_code) == (801_500, 2 * RUBLE, "RUB")
    assert [(line.name, line.request_count, line.cost_micros) for line in summary.by_provider] == [
        ("cloud", 2, 800_000), ("local", 2, 1500),
    ]  # fmt: skip
    assert [(line.name, line.cached_count, line.cost_micros) for line in summary.by_model] == [
        ("small", 1, 801_500), ("other", 1, 0),
    ]  # fmt: skip


async def test_a_summary_covers_the_period_asked_for(room: Room, caller: Identity) -> None:
    now = datetime.now(UTC)
    for days in (1, 10, 40):
        await record(room, hit(caller, f"h{days}", create_time=timestamp(now - timedelta(days=days))))
    request = billing_pb2.GetUsageSummaryRequest(
        tenant_id=caller.tenant_id,
        start_time=timestamp(now - timedelta(days=20)),
        end_time=timestamp(now - timedelta(days=5)),
    )
    with acting_as(ADMIN):
        summary = await room.billing.GetUsageSummary(request)
    assert summary.total.request_count == 1


async def test_a_period_that_ends_before_it_begins_is_refused(room: Room, caller: Identity) -> None:
    request = billing_pb2.GetUsageSummaryRequest(
        tenant_id=caller.tenant_id, start_time=Timestamp(seconds=10), end_time=Timestamp(seconds=5)
    )
    with acting_as(ADMIN):
        assert await field_refused(room.billing.GetUsageSummary(request)) == "end_time"


async def test_an_empty_month_sums_to_nothing(room: Room, caller: Identity) -> None:
    with acting_as(ADMIN):
        summary = await room.billing.GetUsageSummary(billing_pb2.GetUsageSummaryRequest(tenant_id=caller.tenant_id))
    assert summary.total == billing_pb2.UsageTotal(currency_code="RUB")
    assert not summary.by_provider
    assert not summary.by_model


async def test_finance_sees_and_changes_its_own_tenants_books_alone(room: Room, caller: Identity) -> None:
    other = await room.tenant(f"{caller.tenant_id}-other")
    finance = Identity(caller.tenant_id, "key-3", frozenset({"finance"}), "req")
    with acting_as(finance):
        changed = await room.billing.UpdateBudget(
            billing_pb2.UpdateBudgetRequest(tenant_id=caller.tenant_id, limit_micros=7)
        )
        assert changed.budget.limit_micros == 7
        for call in (
            room.billing.GetBudget(billing_pb2.GetBudgetRequest(tenant_id=other.tenant_id)),
            room.billing.UpdateBudget(billing_pb2.UpdateBudgetRequest(tenant_id=other.tenant_id, limit_micros=7)),
            room.billing.ListUsageRecords(billing_pb2.ListUsageRecordsRequest(tenant_id=other.tenant_id)),
            room.billing.GetUsageSummary(billing_pb2.GetUsageSummaryRequest(tenant_id=other.tenant_id)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert error_reason(caught.value) == "RESOURCE_NOT_FOUND"
    assert (await room.budget(other)).limit_micros == 1000 * RUBLE


@pytest.mark.parametrize("limit_micros", [-1, 10**15 + 1])
async def test_an_absurd_budget_is_refused(room: Room, caller: Identity, limit_micros: int) -> None:
    request = billing_pb2.UpdateBudgetRequest(tenant_id=caller.tenant_id, limit_micros=limit_micros)
    with acting_as(ADMIN):
        assert await field_refused(room.billing.UpdateBudget(request)) == "limit_micros"


async def test_prices_are_quoted_in_their_own_and_in_the_base_currency(room: Room) -> None:
    prices = (await room.billing.ListPrices(billing_pb2.ListPricesRequest())).prices
    assert [
        (price.deployment, price.currency_code, price.input_micros, price.output_micros, price.base_input_micros,
         price.base_output_micros)
        for price in prices
    ] == [
        ("cloud/large", "USD", 10 * RUBLE, 30 * RUBLE, 800 * RUBLE, 2400 * RUBLE),
        ("local/small", "RUB", 100 * RUBLE, 200 * RUBLE, 100 * RUBLE, 200 * RUBLE),
    ]  # fmt: skip
    assert (prices[0].cached_input_micros, prices[1].cached_input_micros) == (10 * RUBLE, 10 * RUBLE)
