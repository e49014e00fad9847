"""Budgets of tenants, teams and keys: every one of them holds, whatever its period."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from itertools import count
from typing import Any
from uuid import uuid4

import grpc
import pytest

from llmmesh.billing.v1 import billing_pb2, budgets_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from tests.room.billing.conftest import Configure
from tests.support.billing_room import ADMIN, RUBLE, TOKENS_PER_RUBLE, Room, billing_room

_numbers = count()
REQUEST_ID = str(uuid4())


@pytest.fixture
async def caller(room: Room) -> Identity:
    """A developer of a new tenant with 100 rubles."""
    return await room.tenant(f"budgets-{next(_numbers)}", rubles=100)


async def key_of(room: Room, caller: Identity, team_id: str, **fields: Any) -> Identity:
    request = tenant_pb2.CreateKeyRequest(tenant_id=caller.tenant_id, team_id=team_id, **fields)
    with acting_as(ADMIN):
        key = (await room.tenants.CreateKey(request)).key
    return Identity(caller.tenant_id, key.id, frozenset({"developer"}), "req")


async def make(room: Room, caller: Identity, budget_id: str, rubles: float, **fields: Any) -> billing_pb2.Budget:
    request = budgets_pb2.CreateBudgetRequest(
        tenant_id=caller.tenant_id, budget_id=budget_id, limit_micros=round(rubles * RUBLE), **fields
    )
    with acting_as(ADMIN):
        return (await room.budgets.CreateBudget(request)).budget


async def read(room: Room, caller: Identity, budget_id: str) -> billing_pb2.Budget:
    request = billing_pb2.GetBudgetRequest(tenant_id=caller.tenant_id, budget_id=budget_id)
    with acting_as(ADMIN):
        return (await room.billing.GetBudget(request)).budget


async def counters(room: Room, caller: Identity, *budget_ids: str) -> list[tuple[int, int]]:
    budgets = [await read(room, caller, budget_id) for budget_id in budget_ids]
    return [(budget.spent_micros // RUBLE, budget.reserved_micros // RUBLE) for budget in budgets]


async def refused_by(call: Awaitable[object]) -> str:
    """The id of the budget that refuses a call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_info(caught.value)
    assert info
    assert info.reason == "BUDGET_EXCEEDED"
    return str(info.metadata["budget"]).rpartition("/")[2]


async def test_a_request_counts_for_its_tenant_its_team_and_its_key_and_for_no_other(
    room: Room, caller: Identity
) -> None:
    ours = await key_of(room, caller, "research")
    theirs = await key_of(room, caller, "sales")
    await make(room, caller, "research", 50, team_id="research")
    await make(room, caller, "sales", 50, team_id="sales")
    await make(room, caller, "one-key", 50, key_id=ours.key_id)
    reservation = await room.reserve(ours, "r1", input_tokens=2 * TOKENS_PER_RUBLE)
    await room.reserve(theirs, "r2")
    levels = ("default", "research", "sales", "one-key")
    assert await counters(room, caller, *levels) == [(0, 3), (0, 2), (0, 1), (0, 2)]
    await room.commit(ours, reservation)
    assert await counters(room, caller, *levels) == [(1, 1), (1, 0), (0, 1), (1, 0)]
    row = (await room.usage(caller))[0]
    assert (row.team_id, row.key_id) == ("research", ours.key_id)


async def test_the_tightest_budget_refuses_and_is_named_and_nothing_is_held_anywhere(
    room: Room, caller: Identity
) -> None:
    key = await key_of(room, caller, "research")
    await make(room, caller, "team", 3, team_id="research")
    await make(room, caller, "key", 2, key_id=key.key_id)
    assert await refused_by(room.reserve(key, "r1", input_tokens=4 * TOKENS_PER_RUBLE)) == "key"
    assert await counters(room, caller, "default", "team", "key") == [(0, 0)] * 3
    await room.reserve(key, "r2", input_tokens=2 * TOKENS_PER_RUBLE)
    assert await refused_by(room.reserve(key, "r3", input_tokens=1)) == "key"


async def test_of_a_thousand_calls_of_three_keys_each_budget_lets_exactly_its_own_pass(
    room: Room, caller: Identity
) -> None:
    keys = [await key_of(room, caller, team) for team in ("research", "research", "sales")]
    await make(room, caller, "team", 40, team_id="research")
    await make(room, caller, "key", 15, key_id=keys[0].key_id)
    asked = [room.reserve(keys[number % 3], f"r{number}") for number in range(1000)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    held = [number % 3 for number, answer in enumerate(answers) if isinstance(answer, billing_pb2.Reservation)]
    assert (len(held), held.count(0) + held.count(1)) == (100, 40)
    assert held.count(0) <= 15
    assert await counters(room, caller, "default", "team", "key") == [(0, 100), (0, 40), (0, held.count(0))]


async def test_a_soft_budget_counts_and_never_refuses(room: Room, caller: Identity) -> None:
    await make(room, caller, "soft", 1, soft=True)
    reservation = await room.reserve(caller, "r1", input_tokens=5 * TOKENS_PER_RUBLE)
    await room.commit(caller, reservation, input_tokens=5 * TOKENS_PER_RUBLE)
    assert await counters(room, caller, "soft") == [(5, 0)]


async def test_a_new_budget_has_borne_what_was_spent_and_is_held(room: Room, caller: Identity) -> None:
    await room.commit(caller, await room.reserve(caller, "r1"))
    running = await room.reserve(caller, "r2", input_tokens=3 * TOKENS_PER_RUBLE)
    await make(room, caller, "late", 10)
    await make(room, caller, "credit", 10, cycle=billing_pb2.BUDGET_CYCLE_PREPAID)
    assert await counters(room, caller, "late", "credit") == [(1, 3), (0, 3)]
    await room.commit(caller, running)
    assert await counters(room, caller, "late", "credit") == [(2, 0), (1, 0)]


async def test_prepaid_money_does_not_come_back_with_a_new_month(room: Room, caller: Identity) -> None:
    await make(room, caller, "credit", 5, cycle=billing_pb2.BUDGET_CYCLE_PREPAID)
    await make(room, caller, "quarter", 5, cycle=billing_pb2.BUDGET_CYCLE_QUARTER, time_zone="Europe/Moscow")
    reservation = await room.reserve(caller, "r1", input_tokens=5 * TOKENS_PER_RUBLE)
    await room.commit(caller, reservation, input_tokens=5 * TOKENS_PER_RUBLE)
    with room.database() as database:
        database.execute(
            "UPDATE budgets SET period_start = period_start - interval '4 months' WHERE tenant_id = %s",
            [caller.tenant_id],
        )
    assert await counters(room, caller, "default", "quarter", "credit") == [(0, 0), (0, 0), (5, 0)]
    assert await refused_by(room.reserve(caller, "r2")) == "credit"


async def test_a_calendar_period_begins_at_midnight_of_its_time_zone(room: Room, caller: Identity) -> None:
    budget = await make(room, caller, "moscow", 5, time_zone="Europe/Moscow")
    began = budget.period_start_time.ToDatetime()
    assert (began.hour, began.minute) == (21, 0)


async def test_a_rolling_budget_forgets_what_left_its_period(configure: Configure, fresh_books: str) -> None:
    async with billing_room(configure(fresh_books, sweep_seconds=0.05)) as room:
        caller = await room.tenant("rolling", rubles=100)
        rolling = {"cycle": billing_pb2.BUDGET_CYCLE_ROLLING, "rolling_seconds": 3600}
        await make(room, caller, "hour", 3, **rolling)
        for number in range(2):
            await room.commit(caller, await room.reserve(caller, f"r{number}"))
        with room.database() as database:
            # What an hour does.
            database.execute("ALTER TABLE ledger DISABLE TRIGGER append_only")
            database.execute("UPDATE ledger SET create_time = now() - interval '61 minutes' WHERE request_id = 'r0'")
            database.execute("UPDATE budgets SET period_start = now() - interval '2 hours' WHERE id = 'hour'")
        async with asyncio.timeout(20):
            while await counters(room, caller, "hour") != [(1, 0)]:
                pass
        await room.reserve(caller, "r3", input_tokens=2 * TOKENS_PER_RUBLE)
        assert await refused_by(room.reserve(caller, "r4")) == "hour"


async def test_each_threshold_is_recorded_once_in_a_period(configure: Configure, fresh_books: str) -> None:
    async with billing_room(configure(fresh_books, sweep_seconds=0.05)) as room:
        caller = await room.tenant("watched", rubles=10)

        async def events() -> list[tuple[str, int]]:
            with acting_as(ADMIN):
                found = await room.budgets.ListBudgetEvents(budgets_pb2.ListBudgetEventsRequest(tenant_id="watched"))
            return [(event.budget_id, event.percent) for event in found.events]

        async def spend(request_id: str, rubles: int) -> None:
            reservation = await room.reserve(caller, request_id, input_tokens=rubles * TOKENS_PER_RUBLE)
            await room.commit(caller, reservation, input_tokens=rubles * TOKENS_PER_RUBLE)

        await spend("r1", 8)
        async with asyncio.timeout(20):
            while len(await events()) < 2:
                pass
        await spend("r3", 2)
        async with asyncio.timeout(20):
            while len(await events()) < 3:
                pass
        assert await events() == [("default", 100), ("default", 80), ("default", 50)]
        with room.database() as database:
            raised = database.execute("SELECT severity, title, text FROM alerts WHERE kind = 'budget' ORDER BY id")
            assert raised.fetchall() == [
                ("medium", "Budget default of watched: 50 % spent", "8.00 of 10.00 RUB are spent."),
                ("high", "Budget default of watched: 80 % spent", "8.00 of 10.00 RUB are spent."),
                ("critical", "Budget default of watched: 100 % spent", "10.00 of 10.00 RUB are spent."),
            ]


async def test_an_extension_holds_more_at_every_level_and_a_repeat_nothing(room: Room, caller: Identity) -> None:
    await make(room, caller, "small", 5)
    reservation = await room.reserve(caller, "r1", input_tokens=TOKENS_PER_RUBLE)

    async def extend(rubles: int) -> int:
        request = billing_pb2.ExtendReservationRequest(
            reservation_id=reservation.id, deployments=["local/small"], input_tokens=rubles * TOKENS_PER_RUBLE
        )
        with acting_as(caller):
            return (await room.billing.ExtendReservation(request)).reservation.amount_micros // RUBLE

    assert [await extend(rubles) for rubles in (3, 3, 2)] == [3, 3, 3]
    assert await counters(room, caller, "default", "small") == [(0, 3), (0, 3)]
    assert await refused_by(extend(6)) == "small"
    assert await counters(room, caller, "default", "small") == [(0, 3), (0, 3)]
    await room.commit(caller, reservation, input_tokens=3 * TOKENS_PER_RUBLE)
    assert await counters(room, caller, "default", "small") == [(3, 0), (3, 0)]


async def test_what_was_used_beyond_a_hard_budget_is_not_billed_and_stands_in_the_ledger(
    room: Room, caller: Identity
) -> None:
    await make(room, caller, "small", 3)
    reservation = await room.reserve(caller, "r1", input_tokens=TOKENS_PER_RUBLE)
    other = await room.reserve(caller, "r2", input_tokens=TOKENS_PER_RUBLE)
    settled = await room.commit(caller, reservation, input_tokens=5 * TOKENS_PER_RUBLE)
    # One held, one free; the third is held by another request.
    assert settled.cost_micros == 2 * RUBLE
    [row] = await room.usage(caller)
    assert (row.cost_micros, row.overrun_micros) == (2 * RUBLE, 3 * RUBLE)
    await room.commit(caller, other)
    assert await counters(room, caller, "small", "default") == [(3, 0), (3, 0)]


async def test_a_change_of_an_old_version_is_refused(room: Room, caller: Identity) -> None:
    budget = await make(room, caller, "team", 5, alert_percents=[90])
    change = budgets_pb2.ChangeBudgetRequest(
        tenant_id=caller.tenant_id, budget_id="team", limit_micros=RUBLE, etag=budget.etag
    )
    with acting_as(ADMIN):
        changed = (await room.budgets.ChangeBudget(change)).budget
        assert (changed.limit_micros, list(changed.alert_percents)) == (RUBLE, [90])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await room.budgets.ChangeBudget(change)
    assert (caught.value.code(), error_reason(caught.value)) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")


async def test_a_deleted_budget_refuses_nobody(room: Room, caller: Identity) -> None:
    await make(room, caller, "tiny", 0)
    assert await refused_by(room.reserve(caller, "r1")) == "tiny"
    with acting_as(ADMIN):
        await room.budgets.DeleteBudget(budgets_pb2.DeleteBudgetRequest(tenant_id=caller.tenant_id, budget_id="tiny"))
    await room.reserve(caller, "r1")


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("budget_id", {"budget_id": "A b"}),
        ("team_id", {"team_id": "%"}),
        ("limit_micros", {"limit_micros": -1}),
        ("limit_micros", {"limit_micros": 2**62}),
        ("rolling_seconds", {"rolling_seconds": 60}),
        ("rolling_seconds", {"cycle": billing_pb2.BUDGET_CYCLE_ROLLING, "rolling_seconds": 59}),
        ("time_zone", {"time_zone": "Mars/Olympus"}),
        ("alert_percents", {"alert_percents": [0]}),
        ("cycle", {"cycle": 99}),
    ],
)
async def test_a_bad_field_of_a_budget_is_named(
    room: Room, caller: Identity, field: str, fields: dict[str, Any]
) -> None:
    given: dict[str, Any] = {"tenant_id": caller.tenant_id, "budget_id": "good", **fields}
    with acting_as(ADMIN), pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.budgets.CreateBudget(budgets_pb2.CreateBudgetRequest(**given))
    info = error_info(caught.value)
    assert info
    assert (info.reason, info.metadata["field"]) == ("FIELD_INVALID", field)


async def test_budgets_are_listed_page_by_page_and_by_team(room: Room, caller: Identity) -> None:
    for number in range(3):
        await make(room, caller, f"b{number}", 1, team_id="research")
    seen, page_token = [], ""
    with acting_as(ADMIN):
        while True:
            request = budgets_pb2.ListBudgetsRequest(
                tenant_id=caller.tenant_id, page_size=2, page_token=page_token, team_id="research"
            )
            page = await room.budgets.ListBudgets(request)
            seen += [budget.id for budget in page.budgets]
            page_token = page.next_page_token
            if not page_token:
                break
        wild = budgets_pb2.ListBudgetsRequest(tenant_id=caller.tenant_id, team_id="%")
        assert not (await room.budgets.ListBudgets(wild)).budgets
    assert seen == ["b0", "b1", "b2"]


async def test_another_tenants_budgets_are_not_found(room: Room, caller: Identity) -> None:
    stranger = Identity((await room.tenant(f"{caller.tenant_id}-x")).tenant_id, "k", frozenset({"finance"}), "req")
    with acting_as(stranger), pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.budgets.ListBudgets(budgets_pb2.ListBudgetsRequest(tenant_id=caller.tenant_id))
    assert error_reason(caught.value) == "RESOURCE_NOT_FOUND"


async def test_an_estimated_settlement_is_capped_like_any_other(room: Room) -> None:
    caller = await room.tenant(f"budgets-{next(_numbers)}", rubles=1)
    reservation = await room.reserve(caller, "r1")
    settled = await room.commit(caller, reservation, input_tokens=3 * TOKENS_PER_RUBLE, estimated=True)
    [row] = await room.usage(caller)
    assert (settled.cost_micros, row.usage.estimated, row.finish_reason) == (RUBLE, True, chat_pb2.FINISH_REASON_STOP)


async def test_a_budget_is_made_and_changed_once_however_often_it_is_asked_for(room: Room, caller: Identity) -> None:
    made = [await make(room, caller, "once", 5, request_id=REQUEST_ID) for _ in range(2)]
    assert made[0] == made[1]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await make(room, caller, "other", 5, request_id=REQUEST_ID)
    assert error_reason(caught.value) == "REQUEST_CONFLICT"
    change = budgets_pb2.ChangeBudgetRequest(
        tenant_id=caller.tenant_id, budget_id="once", limit_micros=RUBLE, etag=made[0].etag, request_id=str(uuid4())
    )
    default = billing_pb2.UpdateBudgetRequest(
        tenant_id=caller.tenant_id, limit_micros=RUBLE, etag="1", request_id=str(uuid4())
    )
    with acting_as(ADMIN):
        first = await room.budgets.ChangeBudget(change)
        # The same request, although it names a version that is gone.
        assert await room.budgets.ChangeBudget(change) == first
        updated = await room.billing.UpdateBudget(default)
        assert await room.billing.UpdateBudget(default) == updated
        default.request_id = str(uuid4())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await room.billing.UpdateBudget(default)
    assert error_reason(caught.value) == "VERSION_CONFLICT"
    assert updated.budget.limit_micros == RUBLE


async def test_events_are_found_by_budget(room: Room, caller: Identity) -> None:
    with room.database() as database:
        for budget_id in ("default", "other"):
            statement = "INSERT INTO budget_events VALUES (DEFAULT, %s, %s, 50, 1, 2)"
            database.execute(statement, [caller.tenant_id, budget_id])
    request = budgets_pb2.ListBudgetEventsRequest(tenant_id=caller.tenant_id, budget_id="other")
    with acting_as(ADMIN):
        events = (await room.budgets.ListBudgetEvents(request)).events
    assert [event.budget_id for event in events] == ["other"]
