"""What counting promises, in Redis and in memory alike: no window ever holds more than its limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from llmmesh.tenant.v1 import tenant_pb2
from meshkit.identity import Identity
from services.gateway.limits.local import LocalCounts
from services.gateway.limits.scope import KeyTies, Limits, RateLimits, Scope
from services.gateway.limits.shared import SharedCounts, shared_counts
from services.gateway.limits.standing import NEVER, Standing, limit_headers

LONGEST_WAIT_MS = 65_000


class Counts(Protocol):
    """Counts, and a way to let time pass for them."""

    async def take(self, scopes: list[Scope], tokens: int = 0, lease: str = "") -> Standing: ...

    async def give(self, scopes: list[Scope], taken: Standing, foreseen: int, used: int, lease: str = "") -> None: ...

    async def pass_time(self, scopes: list[Scope], seconds: int) -> None: ...


@dataclass
class InMemory:
    now: float = 1_000_000.0

    def __post_init__(self) -> None:
        self.counts = LocalCounts(lambda: self.now)

    async def take(self, scopes: list[Scope], tokens: int = 0, lease: str = "") -> Standing:
        return self.counts.take(scopes, tokens, lease or uuid4().hex)

    async def give(self, scopes: list[Scope], taken: Standing, foreseen: int, used: int, lease: str = "") -> None:
        self.counts.give(scopes, lease, taken.time_ms, foreseen, used)

    async def pass_time(self, scopes: list[Scope], seconds: int) -> None:
        self.now += seconds


@dataclass
class InRedis:
    counts: SharedCounts
    redis: Any

    async def take(self, scopes: list[Scope], tokens: int = 0, lease: str = "") -> Standing:
        return await self.counts.take(scopes, tokens, lease or uuid4().hex)

    async def give(self, scopes: list[Scope], taken: Standing, foreseen: int, used: int, lease: str = "") -> None:
        await self.counts.give(scopes, lease, taken.time_ms, foreseen, used)

    async def pass_time(self, scopes: list[Scope], seconds: int) -> None:
        """Move what was counted into the past: the clock is Redis's own."""
        for scope in scopes:
            key = f"llmmesh:limits:{{{scope.tenant_id}}}:{scope.level}:{scope.name}:counts"
            counted = await self.redis.hgetall(key)
            await self.redis.delete(key)
            for field, count in counted.items():
                step = seconds // (3600 if field[:1] == b"d" else 5)
                await self.redis.hset(key, field[:1] + str(int(field[1:]) - step).encode(), count)


@pytest.fixture(params=["memory", "redis"])
async def counts(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Counts]:
    if request.param == "memory":
        yield InMemory()
        return
    async with (
        shared_counts(redis_url, timeout_seconds=5, lease_seconds=5) as shared,
        Redis.from_url(redis_url) as redis,
    ):
        yield InRedis(shared, redis)


def scope(level: Any = "key", tenant: str = "", **limits: int) -> Scope:
    return Scope(level, tenant or uuid4().hex, "name", Limits(**limits))


async def test_so_many_requests_a_minute_and_not_one_more(counts: Counts) -> None:
    scopes = [scope(requests_per_minute=3)]
    standings = [await counts.take(scopes) for _ in range(5)]
    assert [standing.granted for standing in standings] == [True, True, True, False, False]
    assert [standing.uses[0].requests for standing in standings] == [0, 1, 2, 3, 3]
    assert 0 < standings[-1].uses[0].requests_wait_ms <= LONGEST_WAIT_MS


async def test_there_is_room_again_once_the_minute_is_over(counts: Counts) -> None:
    scopes = [scope(requests_per_minute=1)]
    assert (await counts.take(scopes)).granted
    await counts.pass_time(scopes, 50)
    assert not (await counts.take(scopes)).granted
    await counts.pass_time(scopes, 15)
    assert (await counts.take(scopes)).granted


async def test_tokens_of_a_day_leave_after_a_day(counts: Counts) -> None:
    scopes = [scope(tokens_per_day=100)]
    assert (await counts.take(scopes, tokens=60)).granted
    await counts.pass_time(scopes, 23 * 3600)
    assert not (await counts.take(scopes, tokens=60)).granted
    await counts.pass_time(scopes, 2 * 3600)
    assert (await counts.take(scopes, tokens=60)).granted


async def test_a_request_counts_in_all_its_scopes_or_in_none(counts: Counts) -> None:
    wide, narrow = scope("tenant", requests_per_minute=10), scope("key", requests_per_minute=1)
    assert (await counts.take([wide, narrow])).granted
    refused = await counts.take([wide, narrow])
    assert not refused.granted
    assert [use.requests for use in refused.uses] == [1, 1]
    assert (await counts.take([wide])).uses[0].requests == 1, "the refused request is counted nowhere"


async def test_tokens_are_counted_as_foreseen_and_corrected_by_what_was_used(counts: Counts) -> None:
    scopes = [scope(tokens_per_minute=100, tokens_per_day=1000)]
    taken = await counts.take(scopes, tokens=80)
    assert not (await counts.take(scopes, tokens=30)).granted
    await counts.give(scopes, taken, foreseen=80, used=50)
    assert (await counts.take(scopes, tokens=0)).uses[0].tokens == 50
    await counts.give(scopes, taken, foreseen=50, used=95)
    use = (await counts.take(scopes, tokens=0)).uses[0]
    assert (use.tokens, use.day_tokens) == (95, 95)


async def test_tokens_given_back_after_their_minute_make_no_room_twice(counts: Counts) -> None:
    scopes = [scope(tokens_per_minute=100)]
    taken = await counts.take(scopes, tokens=80)
    await counts.pass_time(scopes, 70)
    await counts.give(scopes, replace(taken, time_ms=taken.time_ms - 70_000), foreseen=80, used=0)
    assert (await counts.take(scopes, tokens=0)).uses[0].tokens == 0


async def test_a_request_larger_than_its_limit_is_told_that_waiting_is_no_use(counts: Counts) -> None:
    standing = await counts.take([scope(tokens_per_minute=100)], tokens=101)
    assert not standing.granted
    assert standing.uses[0].tokens_wait_ms == NEVER


async def test_answers_under_way_are_counted_until_they_end(counts: Counts) -> None:
    scopes = [scope(concurrent_streams=2)]
    first = await counts.take(scopes, lease="first")
    assert (await counts.take(scopes, lease="second")).granted
    assert not (await counts.take(scopes, lease="third")).granted
    await counts.give(scopes, first, 0, 0, lease="first")
    assert (await counts.take(scopes, lease="third")).granted


async def test_tenants_with_names_alike_are_counted_apart(counts: Counts) -> None:
    tenant = uuid4().hex
    one = [scope("key", tenant, requests_per_minute=1)]
    for other in (scope("team", tenant, requests_per_minute=1), scope("key", f"{tenant}x", requests_per_minute=1)):
        await counts.take(one)
        assert (await counts.take([other])).granted


async def test_callers_at_once_share_what_there_is_exactly(redis_url: str) -> None:
    scopes = [scope(requests_per_minute=50)]
    async with (
        shared_counts(redis_url, timeout_seconds=20, lease_seconds=5) as one,
        shared_counts(redis_url, timeout_seconds=20, lease_seconds=5) as other,
    ):
        taken = await asyncio.gather(
            *(counts.take(scopes, 0, str(number)) for number in range(100) for counts in (one, other))
        )
    assert sum(standing.granted for standing in taken) == 50


async def test_a_lease_that_nobody_renews_ends_by_itself_and_a_renewed_one_does_not(redis_url: str) -> None:
    abandoned, renewed = [scope(concurrent_streams=1)], [scope(concurrent_streams=1)]
    async with shared_counts(redis_url, timeout_seconds=5, lease_seconds=1) as counts:
        await counts.take(abandoned, 0, "dead")
        await counts.take(renewed, 0, "alive")
        async with asyncio.timeout(10):
            while not (await counts.take(abandoned, 0, "next")).granted:
                await counts.renew([(renewed[0], "alive")])
        assert not (await counts.take(renewed, 0, "next")).granted


async def test_a_lease_that_redis_has_lost_is_back_with_its_renewal_until_it_is_dropped(redis_url: str) -> None:
    scopes = [scope(concurrent_streams=1)]
    async with shared_counts(redis_url, timeout_seconds=5, lease_seconds=5) as counts:
        taken = await counts.take(scopes, 0, "held")
        await counts.give(scopes, "held", taken.time_ms, 0, 0)
        await counts.renew([(scopes[0], "held")])
        assert not (await counts.take(scopes, 0, "next")).granted
        await counts.drop([(scopes[0], "held")])
        assert (await counts.take(scopes, 0, "next")).granted


async def test_what_was_counted_is_forgotten_by_redis_itself(redis_url: str) -> None:
    scopes = [scope(requests_per_minute=1, tokens_per_day=9, concurrent_streams=1)]
    async with (
        shared_counts(redis_url, timeout_seconds=5, lease_seconds=5) as counts,
        Redis.from_url(redis_url) as redis,
    ):
        standing = await counts.take(scopes, 1, "lease")
        await counts.give(scopes, "lease", standing.time_ms, 1, 5)
        keys = await redis.keys(f"llmmesh:limits:*{scopes[0].tenant_id}*")
        assert keys
        assert all([0 < await redis.ttl(key) <= 90_000 for key in keys])


@settings(max_examples=60)
@given(
    limit=st.integers(1, 50),
    asked=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 20)), max_size=60),
)
def test_no_minute_of_any_position_holds_more_than_its_limit(limit: int, asked: list[tuple[float, int]]) -> None:
    now = time.time()
    counts = LocalCounts(lambda: now)
    scopes = [scope(tokens_per_minute=limit)]
    granted: list[tuple[float, int]] = []
    for pause, tokens in asked:
        now += pause
        if counts.take(scopes, tokens, "lease").granted:
            granted.append((now, tokens))
        assert sum(taken for at, taken in granted if at > now - 60) <= limit


LEVELS = ("tenant", "team", "key", "user")
PER_REQUEST = {"requests_per_minute": 1, "tokens_per_minute": 10, "tokens_per_day": 10, "concurrent_streams": 1}
"""Limits, and how much of each a request of ten tokens takes."""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("limit", PER_REQUEST)
async def test_every_limit_holds_at_every_level(counts: Counts, level: str, limit: str) -> None:
    """As a policy gives it: two requests have room, and those of others none the less."""
    given = tenant_pb2.RateLimits(**{limit: 2 * PER_REQUEST[limit]})
    named = {"teams": {"red": given}} if level == "team" else {_FIELDS[level]: given}
    limits = RateLimits.from_message(tenant_pb2.TenantRateLimits(**named))  # type: ignore[arg-type]
    assert limits
    tied = replace(limits, ties=KeyTies("red", "ada"))
    scopes = tied.scopes(Identity(uuid4().hex, "key"))
    assert [each.level for each in scopes] == [level]
    assert [(await counts.take(scopes, tokens=10)).granted for _ in range(3)] == [True, True, False]
    others = tied.scopes(Identity(uuid4().hex, "key"))
    standing = await counts.take(others, tokens=10)
    assert standing.granted
    headers = dict(limit_headers(others, standing, 10))
    told = {"requests_per_minute": "requests", "tokens_per_minute": "tokens", "tokens_per_day": "tokens"}.get(limit)
    assert told is None or headers[f"x-ratelimit-limit-{told}"] == str(2 * PER_REQUEST[limit])


_FIELDS = {"tenant": "tenant", "key": "each_key", "user": "each_user"}
