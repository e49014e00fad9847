"""A stream that is under way is heard by all who ask the same: one model call, from the first word on."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import error_reason
from tests.support.gateway_room import Front, Reply, Tenant, audit_events

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
SHORT = "one two three four"
CROWD = 200


class Stream:
    """A streamed answer that is read piece by piece."""

    def __init__(self, tenant: Tenant, text: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True, **more}
        self._call = tenant.call(orjson.dumps(body), **(headers or {}))
        self._bodies = aiter(self._call)
        self.read: list[bytes] = []

    async def word(self) -> bytes:
        """The next piece."""
        self.read.append((await anext(self._bodies)).data)
        return self.read[-1]

    async def rest(self) -> Reply:
        """All of it."""
        async for body in self._bodies:
            self.read.append(body.data)
        return Reply(dict(await self._call.initial_metadata()), self.read)

    def hang_up(self) -> None:
        """Leave."""
        self._call.cancel()


async def heard_by_two(tenant: Tenant, text: str) -> tuple[Stream, Stream]:
    """Who asked first and who asked the same after it, when both have heard its first word."""
    leader = Stream(tenant, text)
    await leader.word()
    follower = Stream(tenant, text)
    await follower.word()
    return leader, follower


async def test_two_hundred_identical_streams_are_one_model_call(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=SHORT, ttft_ms=300)
    replies = await asyncio.gather(*(tenant.chat("Who counts?", stream=True) for _ in range(CROWD)))
    assert front.first.counters.requests == 1
    assert {reply.text for reply in replies} == {SHORT}
    statuses = sorted(reply.headers["x-llmmesh-cache"] for reply in replies)
    assert statuses == ["exact"] * (CROWD - 1) + ["miss"]


async def test_who_asks_the_same_hears_it_while_it_is_spoken_and_pays_nothing(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=LONG, stall_after_chunks=6)
    leader = Stream(tenant, "What is being said?")
    await leader.word()
    follower = Stream(tenant, "What is being said?")
    # The provider is silent in the middle of its answer: only what it has said can have come.
    assert b"one" in await follower.word()
    assert front.first.counters.open_streams == 1
    leader.hang_up()
    follower.hang_up()
    await front.first.until(lambda now: now.aborted_streams == 1)
    assert front.first.counters.requests == 1
    (row,) = await tenant.usage(rows=1)
    assert (row.cache_status, row.usage.estimated) == ("miss", True)
    await tenant.nothing_held()


async def test_the_one_who_asked_first_may_hang_up(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=LONG, tokens_per_second=20)
    leader = Stream(tenant, "Will you stay?")
    await leader.word()
    followers = [Stream(tenant, "Will you stay?") for _ in range(5)]
    for follower in followers:
        await follower.word()
    leader.hang_up()
    replies = await asyncio.gather(*(follower.rest() for follower in followers))
    assert {reply.text for reply in replies} == {LONG}
    assert (front.first.counters.requests, front.first.counters.aborted_streams) == (1, 0)
    rows = await tenant.usage(rows=6)
    assert sorted(row.cache_status for row in rows) == ["exact"] * 5 + ["miss"]
    (paid,) = [row for row in rows if row.cost_micros]
    assert (paid.request_id, paid.usage.estimated) == (tenant.request_ids[0], False)
    assert {row.saved_micros for row in rows if row is not paid} == {paid.cost_micros}
    assert (await tenant.chat("Will you stay?")).headers["x-llmmesh-cache"] == "exact"


async def test_who_hangs_up_while_others_listen_is_held_to_all_of_the_answer(front: Front) -> None:
    tenant = await front.tenant(rate_limits={"tenant": {"tokens_per_minute": 10_000}})
    front.first.set(reply=LONG, tokens_per_second=20)
    leader, follower = await heard_by_two(tenant, "Who counts it?")
    leader.hang_up()
    await follower.rest()
    front.first.reset()
    rows = await tenant.usage(rows=2)
    (paid,) = [row.usage for row in rows if row.cache_status == "miss"]
    another = await tenant.chat("And this?")
    (own,) = [row.usage for row in await tenant.usage(rows=3) if row.request_id == another.headers["x-request-id"]]
    foreseen = 10_000 - int((await tenant.chat("What is left?")).headers["x-ratelimit-remaining-tokens"])
    assert foreseen >= sum(each.input_tokens + each.output_tokens for each in (paid, own))


async def test_a_failure_is_everybodys(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=LONG, cut_after_chunks=8, tokens_per_second=20)
    leader = Stream(tenant, "Will it break?")
    await leader.word()
    follower = Stream(tenant, "Will it break?")
    replies = [await stream.rest() for stream in (leader, follower)]
    for reply in replies:
        assert reply.events[-1]["error"]["code"] == "provider_stream_broken"
    assert front.first.counters.requests == 1


async def test_who_wants_it_whole_is_not_given_a_stream_that_went_wrong(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=LONG, second_reply="{}", tokens_per_second=20)
    form = {"response_format": {"type": "json_object"}}
    leader = Stream(tenant, "As JSON?", **form)
    await leader.word()
    whole = asyncio.create_task(tenant.chat("As JSON?", **form))
    assert (await leader.rest()).events[-1]["error"]["code"] == "answer_invalid"
    assert (await whole).json["choices"][0]["message"]["content"] == "{}"


async def test_a_failure_before_the_first_word_is_its_own(tenant: Tenant, front: Front) -> None:
    front.first.set(headers_ms=200, fail_next=-1, fail_status=400)
    front.second.set(fail_next=-1, fail_status=400)
    outcomes = await asyncio.gather(*(tenant.chat("None?", stream=True) for _ in range(4)), return_exceptions=True)
    assert {error_reason(outcome) for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)} == {
        "PROVIDER_REFUSED"
    }
    assert len(outcomes) == 4
    assert front.first.counters.requests == 4


async def test_what_the_guard_stops_is_stopped_for_all(tenant: Tenant, front: Front) -> None:
    front.first.set(reply="one two three four five six seven eight forbidden nine ten", tokens_per_second=20)
    leader = Stream(tenant, "Say it all?")
    await leader.word()
    follower = Stream(tenant, "Say it all?")
    for reply in (await leader.rest(), await follower.rest()):
        last = next(event for event in reversed(reply.events) if event != "[DONE]")
        assert (last["choices"][0]["finish_reason"], last["llmmesh"]["stopped_for"]) == ("content_filter", "guard")
        assert "forbidden" not in reply.text
    rows = await tenant.usage(rows=2)
    assert {row.finish_reason for row in rows} == {chat_pb2.FINISH_REASON_CONTENT_FILTER}


async def test_why_an_answer_was_stopped_is_written_down_though_who_asked_first_has_left(
    tenant: Tenant, front: Front
) -> None:
    front.first.set(reply="one two three four five six seven eight forbidden nine ten", tokens_per_second=20)
    leader, follower = await heard_by_two(tenant, "Who hears the end?")
    leader.hang_up()
    await follower.rest()
    rules = {event.outcome: list(event.guard_rules) for event in await audit_events(tenant, rows=2)}
    assert rules == {"cancelled": [], "stopped": ["words.forbidden"]}


@pytest.mark.parametrize(
    "more", [{"llmmesh": {"max_cost": 5}}, {"tools": [{"type": "function", "function": {"name": "f"}}]}],
    ids=["a cost of its own", "tools"],
)  # fmt: skip
async def test_what_is_made_for_one_caller_is_heard_by_nobody_else(
    tenant: Tenant, front: Front, more: dict[str, Any]
) -> None:
    front.first.set(reply=LONG, stall_after_chunks=6, tool_arguments=LONG)
    leader = Stream(tenant, "Mine?", **more)
    await front.first.until(lambda now: now.open_streams == 1)
    follower = asyncio.create_task(Stream(tenant, "Mine?", **more).word())
    done, _ = await asyncio.wait([follower], timeout=0.5)
    assert not done
    leader.hang_up()
    await front.first.until(lambda now: now.requests == 2)
    follower.cancel()
