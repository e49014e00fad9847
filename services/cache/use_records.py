"""What became of requests, in Redis: counts by tenant and day, and for a while which entry answered which request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from meshkit.dependency import Dependency
from meshkit.redis_pool import redis_pool
from services.cache.statistics import KEPT_DAYS

COUNTS_PREFIX = "llmmesh:cachestats:1:"
HIT_PREFIX = "llmmesh:cachehit:1:"
EVIDENCE_PREFIX = "llmmesh:cacheevidence:1:"
DISPUTED_PREFIX = "llmmesh:cachedisputed:1:"
"""A tenant's entries that were wrong, by the number of the report."""
MOST_DISPUTED = 1_000
"""Of each tenant; the latest are kept."""
CHANGES = "llmmesh:cacheevidence-changes:1"
"""Tenants by the number of their latest report."""
_REPORT = """
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', ARGV[1]) then return 0 end
if ARGV[2] ~= '' then
  local number = redis.call('INCR', KEYS[4])
  redis.call('HINCRBY', KEYS[2], ARGV[2], 1)
  redis.call('ZADD', KEYS[3], number, ARGV[3])
  if ARGV[4] ~= '' then
    redis.call('ZADD', KEYS[5], number, ARGV[4])
    redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -ARGV[5] - 1)
  end
end
return 1
"""
"""One step: a report counts once and is evidence for all replicas, or it was not taken."""
BEGUN = "begun"
"""The field of a tenant's evidence that says when it was begun anew, in milliseconds of Unix time."""
_BEGIN_ANEW = """
local time = redis.call('TIME')
redis.call('DEL', KEYS[1], KEYS[4])
redis.call('HSET', KEYS[1], ARGV[1], time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[3]), ARGV[2])
"""
REPORT_PREFIX = "llmmesh:cachereport:1:"
CONNECTIONS = 2
SECONDS = 1.0
"""Longest that one batch may take; nobody's answer waits for it."""
KEPT_SECONDS = (KEPT_DAYS + 1) * 24 * 3600


@dataclass(frozen=True, slots=True)
class Reported:
    """What a tenant reported."""

    counts: Mapping[str, int]
    """By verdict and level of certainty."""
    disputed: Sequence[str]
    """Entries that were wrong, each with the level."""
    begun: int = 0
    """When all that it had reported was forgotten last; 0 when it never was."""


class UseRecords:
    """Every operation raises Unavailable when Redis is away."""

    def __init__(self, pool: BlockingConnectionPool, *, kept_seconds: int) -> None:
        self._redis = Redis(connection_pool=pool)
        self._kept_seconds = kept_seconds
        self._report = self._redis.register_script(_REPORT)
        self._begin_anew = self._redis.register_script(_BEGIN_ANEW)
        self._dependency = Dependency("redis for use records", faults=(RedisError,))

    async def add(
        self, counts: Mapping[tuple[str, str], Mapping[str, int]], hits: Mapping[tuple[str, str], str]
    ) -> None:
        """Add counts by tenant and day, and note what answered requests, by tenant and request id."""
        pipeline = self._redis.pipeline(transaction=False)
        for (tenant_id, day), fields in counts.items():
            key = _key(COUNTS_PREFIX, tenant_id, day)
            for field, count in fields.items():
                pipeline.hincrby(key, field, count)
            pipeline.expire(key, KEPT_SECONDS)
        for (tenant_id, request_id), source in hits.items():
            pipeline.set(_key(HIT_PREFIX, tenant_id, request_id), source, ex=self._kept_seconds)
        await self._dependency.ask(pipeline.execute, timeout_seconds=SECONDS)

    async def counts(self, tenant_id: str, days: Sequence[str]) -> list[dict[str, int]]:
        """The counts of a tenant on each of the days."""
        pipeline = self._redis.pipeline(transaction=False)
        for day in days:
            pipeline.hgetall(_key(COUNTS_PREFIX, tenant_id, day))
        found = await self._dependency.ask(pipeline.execute, timeout_seconds=SECONDS)
        return [{field.decode(): int(count) for field, count in each.items()} for each in found]

    async def source(self, tenant_id: str, request_id: str) -> str:
        """What answered a request; empty when nothing is known of it."""
        key = _key(HIT_PREFIX, tenant_id, request_id)
        found = await self._dependency.ask(lambda: self._redis.get(key), timeout_seconds=SECONDS)
        return found.decode() if isinstance(found, bytes) else ""

    async def was_reported(self, tenant_id: str, request_id: str) -> bool:
        """Whether a report of a request was taken."""
        key = _key(REPORT_PREFIX, tenant_id, request_id)
        return bool(await self._dependency.ask(lambda: self._redis.exists(key), timeout_seconds=SECONDS))

    async def first_report(self, tenant_id: str, request_id: str, *, evidence: str = "", disputed: str = "") -> bool:
        """Note that a request was reported, and of what that is evidence; whether it is for the first time."""
        keys = [
            _key(REPORT_PREFIX, tenant_id, request_id),
            _key(EVIDENCE_PREFIX, tenant_id, ""),
            CHANGES,
            CHANGES + ":n",
            _key(DISPUTED_PREFIX, tenant_id, ""),
        ]
        told: list[str | int] = [self._kept_seconds, evidence, tenant_id, disputed, MOST_DISPUTED]
        noted = await self._dependency.ask(lambda: self._report(keys=keys, args=told), timeout_seconds=SECONDS)
        return bool(noted)

    async def forget_reports(self, tenant_id: str) -> Reported:
        """Forget what a tenant reported, here and in every replica that follows; returns what that was."""
        told = await self._reported(tenant_id, 0)
        evidence, disputed = _key(EVIDENCE_PREFIX, tenant_id, ""), _key(DISPUTED_PREFIX, tenant_id, "")
        keys, arguments = [evidence, CHANGES, CHANGES + ":n", disputed], [BEGUN, tenant_id]
        await self._dependency.ask(lambda: self._begin_anew(keys, arguments), timeout_seconds=SECONDS)
        return told

    async def evidence_since(self, number: int) -> tuple[int, dict[str, Reported]]:
        """What tenants reported, of those with reports after that number, and the number to go on from."""
        latest = int(await self._dependency.ask(lambda: self._redis.get(CHANGES + ":n"), timeout_seconds=SECONDS) or 0)
        if latest == number:
            return number, {}
        # A Redis that lost its data counts from one again.
        after = number if latest > number else 0
        # Without an end: who reports once more meanwhile stands beyond the latest, with all it reported before.
        changed: Any = await self._dependency.ask(
            lambda: self._redis.zrangebyscore(CHANGES, f"({after}", "+inf"), timeout_seconds=SECONDS
        )
        tenants = [tenant.decode() for tenant in changed]
        return latest, {tenant_id: await self._reported(tenant_id, after) for tenant_id in tenants}

    async def _reported(self, tenant_id: str, after: int) -> Reported:
        """All counts, and what is disputed since that number."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hgetall(_key(EVIDENCE_PREFIX, tenant_id, ""))
        pipeline.zrangebyscore(_key(DISPUTED_PREFIX, tenant_id, ""), f"({after}", "+inf")
        counts, disputed = await self._dependency.ask(pipeline.execute, timeout_seconds=SECONDS)
        told = {field.decode(): int(count) for field, count in counts.items()}
        begun = told.pop(BEGUN, 0)
        return Reported(told, [entry.decode() for entry in disputed], begun)


@asynccontextmanager
async def use_records(url: str, *, timeout_seconds: float, kept_seconds: int) -> AsyncIterator[UseRecords]:
    """Hold the records for the block; Redis need not be there yet."""
    async with redis_pool(url, size=CONNECTIONS, timeout_seconds=timeout_seconds) as pool:
        yield UseRecords(pool, kept_seconds=kept_seconds)


def _key(prefix: str, tenant_id: str, rest: str) -> str:
    return f"{prefix}{quote(tenant_id, safe='')}:{rest}"
