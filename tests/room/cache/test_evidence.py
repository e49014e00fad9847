"""What other replicas were told: nothing of it is passed over while more is being told."""

from __future__ import annotations

from redis.asyncio import Redis

from services.cache.use_records import CHANGES, use_records
from tests.support.fix_redis import RedisProcess


async def test_who_reports_again_while_reports_are_read_is_not_passed_over(redis_process: RedisProcess) -> None:
    async with (
        use_records(redis_process.url, timeout_seconds=2, kept_seconds=60) as records,
        Redis.from_url(redis_process.url) as redis,
    ):
        for request_id in ("r1", "r2"):
            await records.first_report("acme", request_id, evidence="wrong:180", disputed=f"{request_id}:180")
        await redis.decr(f"{CHANGES}:n")  # as who reads has seen it before the second
        seen, told = await records.evidence_since(0)
        await redis.incr(f"{CHANGES}:n")
        again, told_then = await records.evidence_since(seen)
    assert (seen, again) == (1, 2)
    assert list(told["acme"].disputed) == ["r1:180", "r2:180"]
    assert list(told_then["acme"].disputed) == ["r2:180"]
