"""Postgres away, frozen or crashed: nothing hangs, nothing settled is lost, and everything recovers by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest

from llmmesh.audit.v1 import audit_pb2
from llmmesh.billing.v1 import billing_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_reason, rpc_status
from meshkit.identity import Identity, acting_as
from tests.room.billing.conftest import Configure
from tests.support.billing_room import ADMIN, RUBLE, Room, billing_room
from tests.support.fix_postgres import Postgres

DATABASE_SECONDS = 2.0
ANSWER_SECONDS = 8.0
"""The deadline, and what a busy machine adds."""


@pytest.fixture(scope="module")
def own_postgres(postgres_factory: Callable[[], Postgres]) -> Postgres:
    """A server these tests may stop."""
    return postgres_factory()


@pytest.fixture
async def room(own_postgres: Postgres, configure: Configure) -> AsyncIterator[Room]:
    """A room on a server of its own."""
    async with billing_room(configure(own_postgres.url(own_postgres.create_database()))) as room:
        yield room


@pytest.fixture
async def hasty_room(own_postgres: Postgres, configure: Configure) -> AsyncIterator[Room]:
    """A room that does not wait long."""
    url = own_postgres.url(own_postgres.create_database())
    async with billing_room(configure(url, database_seconds=DATABASE_SECONDS)) as room:
        yield room


def calls(room: Room) -> dict[str, Callable[[], Awaitable[object]]]:
    """One call of every kind that needs the database."""
    record = billing_pb2.UsageRecord(
        request_id="hit", tenant_id="acme", model="small", deployment="local/small", cache_status="exact"
    )
    event = audit_pb2.Event(request_id="e", tenant_id="acme", outcome="answered")
    budget = billing_pb2.UpdateBudgetRequest(tenant_id="acme", limit_micros=RUBLE)
    return {
        "RecordUsage": lambda: room.billing.RecordUsage(billing_pb2.RecordUsageRequest(records=[record])),
        "GetBudget": lambda: room.billing.GetBudget(billing_pb2.GetBudgetRequest(tenant_id="acme")),
        "UpdateBudget": lambda: room.billing.UpdateBudget(budget),
        "ListUsageRecords": lambda: room.billing.ListUsageRecords(
            billing_pb2.ListUsageRecordsRequest(tenant_id="acme")
        ),
        "GetUsageSummary": lambda: room.billing.GetUsageSummary(billing_pb2.GetUsageSummaryRequest(tenant_id="acme")),
        "CreateTenant": lambda: room.tenants.CreateTenant(tenant_pb2.CreateTenantRequest(tenant_id="other")),
        "GetTenant": lambda: room.tenants.GetTenant(tenant_pb2.GetTenantRequest(tenant_id="acme")),
        "ListTenants": lambda: room.tenants.ListTenants(tenant_pb2.ListTenantsRequest()),
        "CreateKey": lambda: room.tenants.CreateKey(tenant_pb2.CreateKeyRequest(tenant_id="acme")),
        "RevokeKey": lambda: room.tenants.RevokeKey(tenant_pb2.RevokeKeyRequest(tenant_id="acme", key_id="k")),
        "RecordEvents": lambda: room.audit.RecordEvents(audit_pb2.RecordEventsRequest(events=[event])),
        "ListEvents": lambda: room.audit.ListEvents(audit_pb2.ListEventsRequest(tenant_id="acme")),
    }


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, str | None]:
    """Status and reason of a call that must fail in time."""
    started = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert time.monotonic() - started < ANSWER_SECONDS
    assert rpc_status(caught.value)
    return caught.value.code(), error_reason(caught.value)


async def assert_everything_is_refused(room: Room, caller: Identity, reservation: billing_pb2.Reservation) -> None:
    with acting_as(ADMIN):
        pending = {name: refusal(call()) for name, call in calls(room).items()}
    pending["CommitReservation"] = refusal(room.commit(caller, reservation))
    pending["CancelReservation"] = refusal(room.cancel(caller, reservation))
    pending["CreateReservation"] = refusal(room.reserve(caller, "later"))
    refused = dict(zip(pending, await asyncio.gather(*pending.values()), strict=True))
    away = (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert refused.pop("CreateReservation") == (grpc.StatusCode.UNAVAILABLE, "BILLING_UNAVAILABLE")
    assert refused == dict.fromkeys(refused, away)


async def test_a_stopped_database_is_refused_at_once_and_found_again(own_postgres: Postgres, room: Room) -> None:
    caller = await room.tenant("acme")
    reservation = await room.reserve(caller, "r1")
    own_postgres.stop()
    try:
        await assert_everything_is_refused(room, caller, reservation)
        await room.becomes(serving=False)
    finally:
        own_postgres.start()
    await room.becomes(serving=True)
    assert (await room.commit(caller, reservation)).cost_micros == RUBLE
    await room.reserve(caller, "r2")


async def test_a_frozen_database_costs_no_more_than_the_deadline(own_postgres: Postgres, hasty_room: Room) -> None:
    caller = await hasty_room.tenant("acme")
    reservation = await hasty_room.reserve(caller, "r1")
    own_postgres.freeze()
    try:
        await assert_everything_is_refused(hasty_room, caller, reservation)
        await hasty_room.becomes(serving=False)
    finally:
        own_postgres.thaw()
    await hasty_room.becomes(serving=True)
    assert (await hasty_room.commit(caller, reservation)).cost_micros == RUBLE
    # A change that was cut off midway may have taken hold or not.
    budget = await hasty_room.budget(caller)
    assert (budget.spent_micros, budget.limit_micros) in {(RUBLE, 1000 * RUBLE), (RUBLE, RUBLE)}


async def test_a_restart_between_two_calls_is_not_noticed(own_postgres: Postgres, room: Room) -> None:
    caller = await room.tenant("acme")
    reservation = await room.reserve(caller, "r1")
    own_postgres.stop()
    own_postgres.start()
    assert (await room.commit(caller, reservation)).cost_micros == RUBLE
    await room.reserve(caller, "r2")
    assert (await room.budget(caller)).spent_micros == RUBLE


async def test_what_was_settled_survives_a_crash_and_what_was_held_is_billed_even_if_its_hold_does_not(
    own_postgres: Postgres, room: Room
) -> None:
    caller = await room.tenant("acme", rubles=100)
    settled = 0
    for number in range(20):
        settled += (await room.commit(caller, await room.reserve(caller, f"r{number}"))).cost_micros
    running = [await room.reserve(caller, f"running{number}") for number in range(20)]
    own_postgres.kill()
    own_postgres.start()
    await room.becomes(serving=True)
    after = await room.budget(caller)
    assert after.spent_micros == settled == 20 * RUBLE
    assert after.reserved_micros <= 20 * RUBLE
    for reservation in running:
        settled += (await room.commit(caller, reservation)).cost_micros
    after = await room.budget(caller)
    assert (after.spent_micros, after.reserved_micros) == (settled, 0)
    assert len(await room.usage(caller)) == 40


async def test_crashes_under_traffic_leave_books_that_balance(own_postgres: Postgres, room: Room) -> None:
    caller = await room.tenant("acme", rubles=100)
    answered: dict[str, int] = {}
    stopped, progress = asyncio.Event(), asyncio.Event()

    async def work(worker: int) -> None:
        number = 0
        while not stopped.is_set():
            request_id = f"w{worker}-{number}"
            number += 1
            try:
                reservation = await room.reserve(caller, request_id, input_tokens=100)
                answered[request_id] = (await room.commit(caller, reservation, input_tokens=50)).cost_micros
                progress.set()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise

    async with asyncio.TaskGroup() as group:
        for worker in range(8):
            group.create_task(work(worker))
        for _ in range(2):
            before = len(answered)
            async with asyncio.timeout(30):
                while len(answered) < before + 50:
                    await progress.wait()
                    progress.clear()
            await asyncio.to_thread(own_postgres.kill)
            await asyncio.to_thread(own_postgres.start)
        await room.becomes(serving=True)
        stopped.set()
    with room.database() as database:
        rows = database.execute("SELECT request_id, cost_micros FROM ledger").fetchall()
        held = database.execute("SELECT coalesce(sum(amount_micros), 0)::bigint FROM reservations").fetchone()
    billed = dict(rows)
    assert answered.items() <= billed.items()
    budget = await room.budget(caller)
    assert (budget.spent_micros, (budget.reserved_micros,)) == (sum(billed.values()), held)


async def test_the_room_starts_without_a_database_and_serves_when_it_comes(
    own_postgres: Postgres, configure: Configure
) -> None:
    config = configure(own_postgres.url(own_postgres.create_database()), database_seconds=DATABASE_SECONDS)
    own_postgres.stop()
    try:
        async with billing_room(config, until_ready=False) as room:
            await room.becomes(serving=False)
            with acting_as(ADMIN):
                assert await refusal(room.tenants.ListTenants(tenant_pb2.ListTenantsRequest())) == (
                    grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE",
                )  # fmt: skip
                watching = room.tenants.WatchPolicies(tenant_pb2.WatchPoliciesRequest())
                assert (await refusal(anext(aiter(watching))))[0] is grpc.StatusCode.UNAVAILABLE
                jwks = await room.tenants.GetJwks(tenant_pb2.GetJwksRequest())
            assert b'"keys"' in jwks.data
            own_postgres.start()
            await room.becomes(serving=True)
            await room.tenant("acme")
    finally:
        if not own_postgres.process:
            own_postgres.start()


async def test_watchers_hear_what_changed_while_the_database_was_away(own_postgres: Postgres, room: Room) -> None:
    caller = await room.tenant("acme")
    watching = aiter(room.tenants.WatchPolicies(tenant_pb2.WatchPoliciesRequest()))
    await anext(watching)
    own_postgres.stop()
    own_postgres.start()
    with room.database() as database:
        database.execute("UPDATE tenants SET display_name = 'changed meanwhile' WHERE id = %s", [caller.tenant_id])
    async with asyncio.timeout(20):
        while (await anext(watching)).tenants[0].display_name != "changed meanwhile":
            pass


async def test_watches_end_when_the_database_stays_away(own_postgres: Postgres, room: Room) -> None:
    watching = aiter(room.tenants.WatchPolicies(tenant_pb2.WatchPoliciesRequest()))
    await anext(watching)
    own_postgres.stop()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(20):
                await anext(watching)
        assert error_reason(caught.value) == "DEPENDENCY_UNAVAILABLE"
    finally:
        own_postgres.start()
