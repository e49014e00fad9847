"""Identical questions at the same moment: one model call, everybody answered, everybody in the ledger."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from tests.support.gateway_room import Front, Reply, Tenant, eventually, second_gateway

FOX = "The quick brown fox jumps over the lazy dog."
CROWD = 200


async def statuses(tenant: Tenant, rows: int) -> list[str]:
    """What the ledger says of the cache, once it has so many rows."""
    return sorted(row.cache_status for row in await tenant.usage(rows=rows))


async def test_two_hundred_identical_questions_are_one_model_call(tenant: Tenant, front: Front) -> None:
    front.first.set(ttft_ms=300)
    replies = await asyncio.gather(*(tenant.chat("What does a fox eat?") for _ in range(CROWD)))
    assert front.first.counters.requests == 1
    assert {reply.json["choices"][0]["message"]["content"] for reply in replies} == {FOX}
    assert sorted(reply.headers["x-llmmesh-cache"] for reply in replies) == ["exact"] * (CROWD - 1) + ["miss"]
    paid = [reply for reply in replies if float(reply.headers["x-llmmesh-cost"].split()[0]) > 0]
    assert len(paid) == 1
    assert (await statuses(tenant, 100)).count("exact") >= 99


async def test_every_follower_is_in_the_ledger_as_a_hit(tenant: Tenant, front: Front) -> None:
    front.first.set(ttft_ms=100)
    await asyncio.gather(*(tenant.chat("Who pays for the fox?") for _ in range(10)))
    rows = await tenant.usage(rows=10)
    assert sorted(row.cache_status for row in rows) == ["exact"] * 9 + ["miss"]
    assert {row.cost_micros > 0 for row in rows if row.cache_status == "exact"} == {False}
    assert {row.saved_micros > 0 for row in rows if row.cache_status == "exact"} == {True}


async def test_streams_share_one_model_call_with_each_other_and_with_whole_answers(
    tenant: Tenant, front: Front
) -> None:
    front.first.set(ttft_ms=200)
    asked = (tenant.chat("Stream the fox.", stream=bool(number % 2)) for number in range(20))
    replies = await asyncio.gather(*asked)
    assert front.first.counters.requests == 1
    assert {said(reply) for reply in replies} == {FOX}


async def test_gateways_share_one_model_call(tenant: Tenant, front: Front) -> None:
    front.first.set(ttft_ms=400)
    async with second_gateway(front, cache_timeout_seconds=5) as second:
        neighbour = Tenant(second, tenant.identity)
        asked = [(tenant if number % 2 else neighbour).chat("Two doors, one fox?") for number in range(20)]
        replies = await asyncio.gather(*asked)
    assert front.first.counters.requests == 1
    assert {said(reply) for reply in replies} == {FOX}


async def test_tenants_do_not_share(front: Front) -> None:
    front.first.set(ttft_ms=200)
    tenants = [await front.tenant() for _ in range(3)]
    await asyncio.gather(*(tenant.chat("Whose fox is it?") for tenant in tenants for _ in range(5)))
    assert front.first.counters.requests == 3


async def test_when_the_leader_hangs_up_another_leads(tenant: Tenant, front: Front) -> None:
    front.first.set(ttft_ms=60_000)
    leader = asyncio.create_task(tenant.chat("Who leads?"))
    await front.first.until(lambda counters: counters.requests == 1)
    followers = [asyncio.create_task(tenant.chat("Who leads?")) for _ in range(5)]
    front.first.set(ttft_ms=0)
    leader.cancel()
    replies = await asyncio.gather(*followers)
    assert {said(reply) for reply in replies} == {FOX}
    assert front.first.counters.requests == 2


async def test_when_the_leader_fails_the_others_go_on(tenant: Tenant, front: Front) -> None:
    front.first.set(headers_ms=200, fail_next=-1, fail_status=400)
    outcomes = await asyncio.gather(*(tenant.chat("All fail?") for _ in range(5)), return_exceptions=True)
    assert all(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes)
    front.first.reset()
    assert said(await tenant.chat("All fail?")) == FOX


async def test_a_private_question_is_not_shared(tenant: Tenant, front: Front) -> None:
    outcomes = await asyncio.gather(*(tenant.chat("Is this confidential?") for _ in range(5)), return_exceptions=True)
    assert len({type(outcome) for outcome in outcomes}) == 1
    assert len(front.guard.prompts) == 5


async def test_who_waits_elsewhere_for_what_will_not_be_stored_waits_no_longer_than_for_the_verdict(
    front: Front,
) -> None:
    daring = await front.tenant(guard_fail_open=True)
    front.guard.fails_in_prompts = True
    front.first.set(ttft_ms=60_000)
    async with second_gateway(front, cache_timeout_seconds=5) as second:
        leader = asyncio.create_task(daring.chat("Who judges this?"))
        await front.first.until(lambda counters: counters.requests == 1)
        neighbour = asyncio.create_task(Tenant(second, daring.identity).chat("Who judges this?"))
        await front.first.until(lambda counters: counters.requests == 2)
        for asking in (leader, neighbour):
            asking.cancel()
        await asyncio.gather(leader, neighbour, return_exceptions=True)


@pytest.mark.parametrize(
    "wish",
    [{"cache-control": "no-cache"}, {"cache-control": "no-store"}, {"x-llmmesh-cache": "bypass"}],
    ids=["no-cache", "no-store", "bypass"],
)
async def test_who_wants_an_answer_of_his_own_gets_one(tenant: Tenant, front: Front, wish: dict[str, str]) -> None:
    front.first.set(ttft_ms=100)
    await asyncio.gather(*(tenant.chat("Mine alone?", wish) for _ in range(3)))
    assert front.first.counters.requests == 3


async def test_an_answer_asked_for_afresh_replaces_the_old_one(tenant: Tenant, front: Front) -> None:
    await hit(tenant, "What is new?")
    front.first.set(reply="Nothing but rain.")
    await tenant.chat("What is new?", {"cache-control": "no-cache"})

    async def replaced() -> bool:
        return said(await tenant.chat("What is new?")) == "Nothing but rain."

    await eventually(replaced)


async def test_what_must_not_be_stored_is_not(tenant: Tenant, front: Front) -> None:
    for _ in range(2):
        reply = await tenant.chat("Do not keep me.", {"cache-control": "no-store"})
        assert reply.headers["x-llmmesh-cache"] == "miss"
    await hit(tenant, "But keep me.")
    assert (await tenant.chat("Do not keep me.")).headers["x-llmmesh-cache"] == "miss"


async def test_an_answer_older_than_the_caller_likes_is_asked_for_again(tenant: Tenant, front: Front) -> None:
    await hit(tenant, "How old am I?")
    young = await tenant.chat("How old am I?", {"cache-control": "max-age=3600"})
    assert young.headers["x-llmmesh-cache"] == "exact"
    old = await tenant.chat("How old am I?", llmmesh={"cache": {"max_age_seconds": 0}})
    assert old.headers["x-llmmesh-cache"] == "miss"


async def hit(tenant: Tenant, text: str) -> Reply:
    """Ask until the answer comes from the cache."""

    async def cached() -> Any:
        reply = await tenant.chat(text)
        return reply if reply.headers["x-llmmesh-cache"] == "exact" else None

    found: Reply = await eventually(cached)
    return found


def said(reply: Reply) -> str:
    """The text of a whole answer or of a stream."""
    if b"data: " in reply.bodies[0]:
        return reply.text
    text: str = reply.json["choices"][0]["message"]["content"]
    return text


async def test_a_hit_is_streamed_in_its_first_pieces_at_the_pace_asked_for(tenant: Tenant, front: Front) -> None:
    front.first.set(tokens_per_second=40)
    first = await tenant.chat("Piece by piece?", stream=True)
    in_one = await hit(tenant, "Piece by piece?")
    at_once = await tenant.chat("Piece by piece?", {"x-llmmesh-cache-pace": "0"}, stream=True)
    started = time.perf_counter()
    paced = await tenant.chat("Piece by piece?", stream=True, llmmesh={"cache": {"pieces_per_second": 50}})
    spent = time.perf_counter() - started
    assert pieces(first) == pieces(at_once) == pieces(paced)
    assert len(pieces(first)) > 1
    assert spent >= (len(pieces(first)) - 1) / 50
    assert said(first) == said(at_once) == said(paced) == said(in_one) == FOX
    assert len((await tenant.chat("Piece by piece?", stream=True)).bodies) == 1


async def test_a_hit_reports_the_first_usage_with_its_prompt_as_cached(tenant: Tenant, front: Front) -> None:
    asked = (await tenant.chat("What was used?")).json["usage"]
    again = (await hit(tenant, "What was used?")).json["usage"]
    assert again["prompt_tokens_details"]["cached_tokens"] == again["prompt_tokens"] == asked["prompt_tokens"]
    assert asked["prompt_tokens_details"]["cached_tokens"] == 0
    assert again["total_tokens"] == asked["total_tokens"]


def pieces(reply: Reply) -> list[str]:
    """The pieces of text of a stream."""
    choices = [event["choices"] for event in reply.events if event != "[DONE]" and event.get("choices")]
    return [text for choice in choices if (text := choice[0]["delta"].get("content"))]


async def test_the_people_of_a_tenant_share_in_the_gateways_memory(tenant: Tenant, front: Front) -> None:
    front.first.set(ttft_ms=300)
    async with second_gateway(front, cache_target="127.0.0.1:1") as alone:
        lonely = Tenant(alone, tenant.identity)
        people = [(f"u{number}", {"subject": f"case {number}"}) for number in range(20)]
        asked = (lonely.chat("Who is asking?", user=name, metadata=more) for name, more in people)
        replies = await asyncio.gather(*asked)
    assert {said(reply) for reply in replies} == {FOX}
    assert front.first.counters.requests == 1


async def test_while_the_cache_is_away_a_crowd_is_still_one_model_call(tenant: Tenant, front: Front) -> None:
    front.first.set(ttft_ms=300)
    async with second_gateway(front, cache_target="127.0.0.1:1") as alone:
        lonely = Tenant(alone, tenant.identity)
        replies = await asyncio.gather(*(lonely.chat("Who needs a cache?") for _ in range(20)))
        hot = await asyncio.gather(*(lonely.chat("Surprise me!", temperature=1.5) for _ in range(3)))
    assert {said(reply) for reply in [*replies, *hot]} == {FOX}
    assert front.first.counters.requests == 1 + len(hot)
