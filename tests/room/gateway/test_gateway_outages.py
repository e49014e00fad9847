"""Rooms behind the gateway are away: what a caller sees, and that no money is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from llmmesh.gateway.v1.openai_pb2_grpc import OpenAIServiceStub
from llmmesh.guard.v1 import guard_pb2
from meshkit.client import connect
from meshkit.errors import error_reason
from services.billing.config import BillingConfig
from tests.support.billing_room import billing_room
from tests.support.gateway_room import Front, Reply, Tenant, audit_events, eventually, front_room, second_gateway

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def test_an_error_of_the_guard_is_no_permission(tenant: Tenant, front: Front) -> None:
    front.guard.action = guard_pb2.ACTION_ERROR
    assert await tenant.failure("Judge me.") == (UNAVAILABLE, "GUARD_UNAVAILABLE")
    assert front.first.counters.requests == 0
    (event,) = await audit_events(tenant, rows=1)
    assert (event.outcome, list(event.guard_rules)) == ("failed", ["scripted.failed"])


async def test_a_frozen_guard_costs_a_deadline_and_refuses(tenant: Tenant, front: Front) -> None:
    front.guard.frozen = True
    assert await tenant.failure("Judge me in time.") == (UNAVAILABLE, "GUARD_UNAVAILABLE")


async def test_a_tenant_that_fails_open_is_answered_unjudged_and_nothing_is_kept(front: Front) -> None:
    daring = await front.tenant(guard_fail_open=True)
    front.guard.action = guard_pb2.ACTION_ERROR
    for _ in range(2):
        reply = await daring.chat("Nobody judged me.")
        assert reply.headers["x-llmmesh-cache"] in {"miss", "bypass"}
    assert front.first.counters.requests == 2


async def test_what_a_layer_of_the_guard_let_pass_because_it_was_away_is_not_kept(tenant: Tenant, front: Front) -> None:
    front.guard.fails_open = True
    replies = [await tenant.chat("One layer was away.") for _ in range(2)]
    assert [reply.headers["x-llmmesh-cache"] for reply in replies] == ["bypass", "bypass"]
    front.guard.fails_open = False
    assert (await tenant.chat("One layer was away.")).headers["x-llmmesh-cache"] == "miss"


async def test_the_answer_to_a_prompt_that_could_not_be_judged_is_watched_all_the_same(front: Front) -> None:
    daring = await front.tenant(guard_fail_open=True)
    front.guard.fails_in_prompts = True
    front.first.set(reply="one two three forbidden four")
    reply = await daring.chat("Nobody judged me either.", stream=True)
    assert "forbidden" not in reply.text
    (event,) = await audit_events(daring, rows=1)
    assert (event.outcome, event.unguarded) == ("stopped", True)


async def test_a_guard_that_breaks_in_an_answer_ends_it_in_band(tenant: Tenant, front: Front) -> None:
    front.guard.breaks_in_answers = True
    assert await tenant.failure("Watch me.") == (UNAVAILABLE, "GUARD_UNAVAILABLE")
    (row,) = await tenant.usage(rows=1)
    assert row.usage.output_tokens > 0


async def test_a_guard_that_breaks_in_an_answer_lets_it_pass_for_a_tenant_that_fails_open(front: Front) -> None:
    daring = await front.tenant(guard_fail_open=True)
    front.guard.breaks_in_answers = True
    reply = await daring.chat("Watch me or not.", stream=True)
    assert reply.text.startswith("The quick brown fox")
    assert reply.events[-1] == "[DONE]"


async def test_what_passed_unwatched_is_written_down_so_though_its_caller_hung_up(front: Front) -> None:
    daring = await front.tenant(guard_fail_open=True)
    front.guard.breaks_in_answers = True
    front.first.set(reply_tokens=5000, tokens_per_second=100)
    body = {"model": "m", "messages": [{"role": "user", "content": "Watch me for a while."}], "stream": True}
    call = daring.call(orjson.dumps(body))
    heard = Reply({}, [])
    while not heard.text:
        heard.bodies.append((await call.read()).data)
    call.cancel()
    (event,) = await audit_events(daring, rows=1)
    assert (event.outcome, event.unguarded) == ("cancelled", True)


class Billing:
    """Billing that a test may stop and start again on the same port."""

    def __init__(self, config: BillingConfig) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self.room: Any = None

    async def start(self) -> None:
        self._stack = AsyncExitStack()
        self.room = await self._stack.enter_async_context(billing_room(self._config))

    async def stop(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def own_billing(billing_config: BillingConfig, free_port: int) -> AsyncIterator[Billing]:
    billing = Billing(billing_config.model_copy(update={"listen": f"127.0.0.1:{free_port}", "drain_seconds": 0}))
    await billing.start()
    yield billing
    await billing.stop()


@asynccontextmanager
async def own_front(billing: Billing, redis_url: str, folder: Path, **settings: Any) -> AsyncIterator[Front]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SCRIPTED_KEY", "sk-scripted")
        async with front_room(billing.room, redis_url, folder, billing_timeout_seconds=1, **settings) as front:
            yield front


async def test_without_billing_cached_answers_go_on_and_spending_is_503(
    own_billing: Billing, redis_url: str, tmp_path: Path
) -> None:
    async with own_front(own_billing, redis_url, tmp_path) as front:
        tenant = await front.tenant()
        await remembered(tenant, "Remember the fox.")
        await own_billing.stop()
        assert await tenant.failure("A new question.") == (UNAVAILABLE, "BILLING_UNAVAILABLE")
        assert (await tenant.chat("Remember the fox.")).headers["x-llmmesh-cache"] == "exact"
        await own_billing.start()

        async def answered() -> bool:
            try:
                await tenant.chat("A newer question.")
            except grpc.aio.AioRpcError:
                return False
            return True

        await eventually(answered)


async def test_without_billing_for_too_long_nobody_is_told_that_the_key_is_wrong(
    own_billing: Billing, redis_url: str, tmp_path: Path
) -> None:
    async with own_front(
        own_billing, redis_url, tmp_path, policy_max_stale_seconds=0, outbox_drain_seconds=0.1
    ) as front:
        tenant = await front.tenant()
        await remembered(tenant, "Remember me.")
        await own_billing.stop()

        async def refused() -> str | None:
            try:
                await tenant.chat("Remember me.")
            except grpc.aio.AioRpcError as error:
                return error_reason(error)
            return None

        assert await eventually(refused) == "BILLING_UNAVAILABLE"


async def test_what_was_used_while_billing_was_away_is_in_the_ledger_afterwards(
    own_billing: Billing, redis_url: str, tmp_path: Path
) -> None:
    async with own_front(own_billing, redis_url, tmp_path) as front:
        tenant = await front.tenant()
        front.first.set(reply_tokens=30, tokens_per_second=40)
        asking = asyncio.create_task(tenant.chat("Slowly.", stream=True))
        await front.first.until(lambda now: now.open_streams == 1)
        await own_billing.stop()
        reply = await asking
        assert reply.events[-1] == "[DONE]"
        assert reply.events[-2]["llmmesh"]["cost"] is None
        await own_billing.start()
        front.billing = own_billing.room
        (row,) = await tenant.usage(rows=1)
        assert (row.usage.output_tokens, row.usage.estimated) == (30, False)
        await tenant.nothing_held()


async def test_a_gateway_that_stops_first_delivers_what_is_owed(
    own_billing: Billing, redis_url: str, tmp_path: Path
) -> None:
    async with own_front(own_billing, redis_url, tmp_path) as front:
        tenant = await front.tenant()
        front.first.set(reply_tokens=5000, tokens_per_second=100)
        call = tenant.call(
            orjson.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "Talk."}]})
        )
        await call.read()
        call.cancel()
        await front.first.until(lambda now: now.aborted_streams == 1)
    (row,) = await own_billing.room.usage(tenant.identity)
    assert row.usage.estimated


async def test_what_an_answer_had_said_when_its_gateway_could_wait_no_longer_is_billed(
    tenant: Tenant, front: Front
) -> None:
    front.first.set(reply_tokens=5000, tokens_per_second=100)
    async with AsyncExitStack() as callers:
        async with second_gateway(front, drain_seconds=0) as stopping:
            # A caller who stays to the end, which those of the gateway's own block do not.
            stub = await callers.enter_async_context(connect(f"127.0.0.1:{stopping.port}", OpenAIServiceStub))
            caller = Tenant(replace(stopping, openai=stub), tenant.identity)
            body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Talk to the end."}]}
            call = caller.call(orjson.dumps(body))
            await call.read()
        (row,) = await tenant.usage(rows=1)
        assert row.usage.estimated
        (event,) = await audit_events(tenant, rows=1)
        assert event.outcome == "cancelled"
        await tenant.nothing_held()


async def test_without_the_cache_answers_come_from_providers_and_say_so(
    own_billing: Billing, redis_url: str, tmp_path: Path, free_port: int
) -> None:
    async with own_front(own_billing, redis_url, tmp_path, cache_target=f"127.0.0.1:{free_port}") as front:
        tenant = await front.tenant()
        for question in ("Is anybody there?", "And there?"):
            assert (await tenant.chat(question)).headers["x-llmmesh-cache"] == "unavailable"


async def remembered(tenant: Tenant, text: str) -> None:
    """Return once the question is answered from the cache."""

    async def hit() -> bool:
        return (await tenant.chat(text)).headers["x-llmmesh-cache"] == "exact"

    await eventually(hit)
