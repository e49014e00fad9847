"""Money held before a call, settled after it, and never a micro-unit more than the budget."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from itertools import count

import grpc
import pytest

from llmmesh.billing.v1 import billing_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_info, error_reason
from meshkit.identity import Identity, acting_as
from tests.room.billing.conftest import Configure
from tests.support.billing_room import ADMIN, RUBLE, TOKENS_PER_RUBLE, Room, billing_room

_numbers = count()


@pytest.fixture
async def caller(room: Room) -> Identity:
    """A developer of a new tenant with 100 rubles."""
    return await room.tenant(f"tenant-{next(_numbers)}", rubles=100)


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def derived(room: Room, caller: Identity) -> tuple[int, int]:
    """What ledger and reservations say was spent and is held."""
    with room.database() as database:
        spent = "SELECT coalesce(sum(cost_micros), 0)::bigint FROM ledger WHERE tenant_id = %s"
        held = "SELECT coalesce(sum(amount_micros), 0)::bigint FROM reservations WHERE tenant_id = %s"
        rows = [database.execute(sums, [caller.tenant_id]).fetchone() for sums in (spent, held)]
    return tuple(row[0] for row in rows if row)


async def test_a_reservation_holds_the_worst_case_at_the_dearest_deployment(room: Room, caller: Identity) -> None:
    reservation = await room.reserve(
        caller, "r1", deployments=("local/small", "cloud/large"), input_tokens=1000, max_output_tokens=100
    )
    # 1000 tokens at 10 USD and 100 at 30 USD a million, 80 rubles a dollar
    assert (reservation.amount_micros, reservation.currency_code) == (1_040_000, "RUB")
    assert (await room.budget(caller)).reserved_micros == 1_040_000


async def test_settling_bills_what_was_used_and_frees_the_rest(room: Room, caller: Identity) -> None:
    reservation = await room.reserve(caller, "r1", max_output_tokens=1000)
    settled = await room.commit(
        caller, reservation, input_tokens=1, cached_input_tokens=2, cache_write_tokens=3, output_tokens=4,
        reasoning_tokens=5, estimated=True,
    )  # fmt: skip
    assert (settled.cost_micros, settled.currency_code) == (4 * 100 + 2 * 10 + 9 * 200, "RUB")
    budget = await room.budget(caller)
    assert (budget.spent_micros, budget.reserved_micros) == (2220, 0)
    [row] = await room.usage(caller)
    assert (row.request_id, row.key_id, row.model, row.deployment, row.provider, row.cache_status) == (
        "r1", "key-1", "small", "local/small", "local", "miss",
    )  # fmt: skip
    assert row.usage == chat_pb2.TokenUsage(
        input_tokens=1, cached_input_tokens=2, cache_write_tokens=3, output_tokens=4, reasoning_tokens=5, estimated=True
    )
    assert (row.cost_micros, row.finish_reason) == (2220, chat_pb2.FINISH_REASON_STOP)


async def test_a_part_of_a_request_is_billed_once_beside_its_answer(room: Room, caller: Identity) -> None:
    reservation = await room.reserve(caller, "r1", max_output_tokens=TOKENS_PER_RUBLE)
    held = (await room.budget(caller)).reserved_micros
    for _ in range(2):
        part = await room.commit(caller, reservation, "cloud/large", part="hedge-1", input_tokens=100, estimated=True)
        assert part.cost_micros == 100 * 10 * 80
    budget = await room.budget(caller)
    assert (budget.spent_micros, budget.reserved_micros) == (part.cost_micros, held)
    answer = await room.commit(caller, reservation)
    budget = await room.budget(caller)
    assert (budget.spent_micros, budget.reserved_micros) == (part.cost_micros + answer.cost_micros, 0)
    rows = {row.request_id: row for row in await room.usage(caller)}
    assert set(rows) == {"r1", "r1:hedge-1"}
    assert (rows["r1:hedge-1"].deployment, rows["r1:hedge-1"].usage.estimated) == ("cloud/large", True)


async def test_a_fraction_of_a_micro_unit_is_rounded_up_once_per_request(room: Room) -> None:
    caller = await room.tenant("in-dollars", currency_code="USD")
    reservation = await room.reserve(caller, "r1", input_tokens=1, max_output_tokens=1)
    # 1 token at 100 RUB and 1 at 200 RUB a million are 300 micro-rubles, 3.75 micro-dollars
    assert (reservation.amount_micros, reservation.currency_code) == (4, "USD")
    settled = await room.commit(caller, reservation, input_tokens=1, output_tokens=1)
    assert (settled.cost_micros, settled.currency_code) == (4, "USD")


async def test_asking_again_returns_the_first_reservation(room: Room, caller: Identity) -> None:
    first = await room.reserve(caller, "r1")
    assert await room.reserve(caller, "r1") == first
    assert (await room.budget(caller)).reserved_micros == RUBLE


async def test_asking_again_at_the_same_time_holds_once(room: Room, caller: Identity) -> None:
    reservations = await asyncio.gather(*(room.reserve(caller, "r1") for _ in range(50)))
    assert len({reservation.id for reservation in reservations}) == 1
    assert (await room.budget(caller)).reserved_micros == RUBLE


async def test_the_same_request_id_with_another_body_is_refused(room: Room, caller: Identity) -> None:
    await room.reserve(caller, "r1")
    error = await refusal(room.reserve(caller, "r1", input_tokens=7))
    assert (error.code(), error_reason(error)) == (grpc.StatusCode.ABORTED, "RESERVATION_CONFLICT")


async def test_two_bodies_under_one_id_at_the_same_time_hold_one(room: Room, caller: Identity) -> None:
    asked = [room.reserve(caller, "r1", input_tokens=tokens) for tokens in (10_000, 20_000) * 10]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    held = {answer.amount_micros for answer in answers if isinstance(answer, billing_pb2.Reservation)}
    assert len(held) == 1
    assert (await room.budget(caller)).reserved_micros == held.pop()


async def test_a_billed_request_cannot_be_reserved_again(room: Room, caller: Identity) -> None:
    await room.commit(caller, await room.reserve(caller, "r1"))
    error = await refusal(room.reserve(caller, "r1"))
    assert error_reason(error) == "RESERVATION_CONFLICT"


async def test_the_same_request_id_of_two_tenants_is_two_requests(room: Room, caller: Identity) -> None:
    other = await room.tenant("same-id-other")
    await room.reserve(caller, "r1")
    await room.reserve(other, "r1", input_tokens=7)
    assert (await room.budget(other)).reserved_micros == 700


async def test_settling_again_returns_the_first_settlement(room: Room, caller: Identity) -> None:
    reservation = await room.reserve(caller, "r1")
    first = await room.commit(caller, reservation, input_tokens=10)
    assert await room.commit(caller, reservation, input_tokens=99) == first
    assert (await room.budget(caller)).spent_micros == 1000


async def test_settling_again_at_the_same_time_bills_once(room: Room, caller: Identity) -> None:
    reservation = await room.reserve(caller, "r1")
    await asyncio.gather(*(room.commit(caller, reservation) for _ in range(50)))
    assert (await room.budget(caller)).spent_micros == RUBLE
    assert len(await room.usage(caller)) == 1


async def test_a_cancelled_reservation_frees_its_amount_and_cancelling_again_does_nothing(
    room: Room, caller: Identity
) -> None:
    reservation = await room.reserve(caller, "r1")
    await room.reserve(caller, "r2")
    await room.cancel(caller, reservation)
    await room.cancel(caller, reservation)
    assert (await room.budget(caller)).reserved_micros == RUBLE


async def test_what_was_used_is_billed_even_after_cancelling(room: Room, caller: Identity) -> None:
    reservation = await room.reserve(caller, "r1")
    await room.cancel(caller, reservation)
    await room.commit(caller, reservation)
    budget = await room.budget(caller)
    assert (budget.spent_micros, budget.reserved_micros) == (RUBLE, 0)


async def test_a_budget_too_small_is_named_with_what_is_left(room: Room, caller: Identity) -> None:
    await room.reserve(caller, "r1", input_tokens=60 * TOKENS_PER_RUBLE)
    error = await refusal(room.reserve(caller, "r2", input_tokens=41 * TOKENS_PER_RUBLE))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    info = error_info(error)
    assert info
    assert (info.reason, dict(info.metadata)) == (
        "BUDGET_EXCEEDED", {"budget": f"tenants/{caller.tenant_id}/budgets/default"}
    )  # fmt: skip
    assert "of 100 RUB 40 is left and this request may cost 41" in str(error.details())
    await room.reserve(caller, "r3", input_tokens=40 * TOKENS_PER_RUBLE)


async def test_of_a_thousand_calls_at_once_a_budget_for_a_hundred_lets_exactly_a_hundred_pass(
    room: Room, caller: Identity
) -> None:
    asked = [room.reserve(caller, f"r{number}") for number in range(1000)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    held = [answer for answer in answers if isinstance(answer, billing_pb2.Reservation)]
    refused = {error_reason(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
    assert (len(held), refused) == (100, {"BUDGET_EXCEEDED"})
    await asyncio.gather(*(room.commit(caller, reservation) for reservation in held))
    budget = await room.budget(caller)
    assert (budget.spent_micros, budget.reserved_micros) == (100 * RUBLE, 0)
    assert derived(room, caller) == (100 * RUBLE, 0)


async def test_a_small_request_passes_beside_large_ones_that_do_not_fit(room: Room, caller: Identity) -> None:
    sizes = [101, 60, 50, 30, 99, 10]
    asked = [room.reserve(caller, f"r{size}", input_tokens=size * TOKENS_PER_RUBLE) for size in sizes]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    held = sum(answer.amount_micros for answer in answers if isinstance(answer, billing_pb2.Reservation))
    assert (await room.budget(caller)).reserved_micros == held
    smallest_refused = min(
        size for size, answer in zip(sizes, answers, strict=True) if not isinstance(answer, billing_pb2.Reservation)
    )
    assert held + smallest_refused * RUBLE > 100 * RUBLE


async def test_two_replicas_share_one_budget_and_never_overspend(configure: Configure, fresh_books: str) -> None:
    async with billing_room(configure(fresh_books)) as one, billing_room(configure(fresh_books)) as two:
        callers = [await one.tenant(name, rubles=50) for name in ("shared-a", "shared-b")]
        rooms = (one, two)

        async def spend(number: int) -> None:
            room, caller = rooms[number % 2], callers[number // 2 % 2]
            # Every id is asked for through both replicas.
            await room.commit(caller, await room.reserve(caller, f"r{number // 4}"))

        spent = await asyncio.gather(*(spend(number) for number in range(800)), return_exceptions=True)
        refused = [error for error in spent if isinstance(error, grpc.aio.AioRpcError)]
        assert {error_reason(error) for error in refused} <= {"BUDGET_EXCEEDED", "RESERVATION_CONFLICT"}
        for caller in callers:
            budget = await two.budget(caller)
            assert (budget.spent_micros, budget.reserved_micros) == (50 * RUBLE, 0)
            assert derived(one, caller) == (50 * RUBLE, 0)


async def test_a_new_month_begins_with_nothing_spent_and_what_is_held_still_held(room: Room, caller: Identity) -> None:
    await room.commit(caller, await room.reserve(caller, "r1", input_tokens=90 * TOKENS_PER_RUBLE),
                      input_tokens=90 * TOKENS_PER_RUBLE)  # fmt: skip
    running = await room.reserve(caller, "r2", input_tokens=10 * TOKENS_PER_RUBLE)
    with room.database() as database:
        database.execute(
            "UPDATE budgets SET period_start = period_start - interval '1 month' WHERE tenant_id = %s",
            [caller.tenant_id],
        )
    seen = await room.budget(caller)
    assert (seen.spent_micros, seen.reserved_micros, seen.period_start_time.ToDatetime().day) == (0, 10 * RUBLE, 1)
    await room.reserve(caller, "r3", input_tokens=90 * TOKENS_PER_RUBLE)
    error = await refusal(room.reserve(caller, "r4", input_tokens=1))
    assert error_reason(error) == "BUDGET_EXCEEDED"
    await room.commit(caller, running)
    after = await room.budget(caller)
    assert (after.spent_micros, after.reserved_micros) == (RUBLE, 90 * RUBLE)
    assert after.period_start_time == seen.period_start_time


async def test_settling_alone_rolls_the_month_over(room: Room, caller: Identity) -> None:
    await room.commit(caller, await room.reserve(caller, "r1"))
    running = await room.reserve(caller, "r2")
    with room.database() as database:
        database.execute(
            "UPDATE budgets SET period_start = period_start - interval '1 month' WHERE tenant_id = %s",
            [caller.tenant_id],
        )
    await room.commit(caller, running)
    budget = await room.budget(caller)
    assert (budget.spent_micros, budget.reserved_micros) == (RUBLE, 0)


async def test_a_lapsed_reservation_is_let_go_and_still_billed_when_it_is_settled(
    configure: Configure, fresh_books: str
) -> None:
    config = configure(fresh_books, reservation_seconds=0.2, sweep_seconds=0.05)
    async with billing_room(config) as one, billing_room(config) as two:
        caller = await one.tenant("lapsing", rubles=1)
        reservation = await one.reserve(caller, "r1")
        async with asyncio.timeout(20):
            while (await two.budget(caller)).reserved_micros:
                pass
        settled = await one.commit(caller, reservation)
        assert settled.cost_micros == RUBLE
        assert [row.request_id for row in await one.usage(caller)] == ["r1"]
        assert (await one.budget(caller)).spent_micros == RUBLE


def lapse(room: Room) -> None:
    """Return when every reservation's term is over."""
    with room.database() as database:
        database.execute("SELECT pg_sleep(extract(epoch FROM max(expire_time) - clock_timestamp())) FROM reservations")


async def test_what_lapsed_refuses_nobody_even_before_it_is_swept(configure: Configure, fresh_books: str) -> None:
    async with billing_room(configure(fresh_books, reservation_seconds=0.01, sweep_seconds=3600)) as room:
        caller = await room.tenant("lapsing", rubles=1)
        await room.reserve(caller, "r1")
        await asyncio.to_thread(lapse, room)
        await room.reserve(caller, "r2")
        assert (await room.budget(caller)).reserved_micros == RUBLE


async def test_lowering_the_budget_stops_new_reservations_and_keeps_running_ones(room: Room, caller: Identity) -> None:
    running = await room.reserve(caller, "r1", input_tokens=50 * TOKENS_PER_RUBLE)
    with acting_as(ADMIN):
        changed = await room.billing.UpdateBudget(
            billing_pb2.UpdateBudgetRequest(tenant_id=caller.tenant_id, limit_micros=10 * RUBLE)
        )
    assert (changed.budget.limit_micros, changed.budget.reserved_micros) == (10 * RUBLE, 50 * RUBLE)
    assert error_reason(await refusal(room.reserve(caller, "r2", input_tokens=1))) == "BUDGET_EXCEEDED"
    await room.commit(caller, running)
    assert (await room.budget(caller)).spent_micros == RUBLE
    await room.reserve(caller, "r3")
