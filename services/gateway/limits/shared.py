"""Counts that all gateways share, in Redis: one round trip a request, however many limits it meets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from meshkit.dependency import Dependency
from meshkit.redis_pool import redis_pool
from services.gateway.limits.scope import Scope
from services.gateway.limits.standing import Standing, Use

CONNECTIONS = 16
_USE_FIELDS = 7
_HERE = Path(__file__).parent
_DROP = "for i = 1, #KEYS do redis.call('ZREM', KEYS[i], ARGV[i]) end"


class SharedCounts:
    """Counts in Redis, by its own clock. Every operation ends at its deadline, a frozen Redis included."""

    def __init__(self, redis: Redis, *, timeout_seconds: float, lease_seconds: float) -> None:
        self._redis = Dependency("redis_rate_limits", faults=(RedisError,))
        self._timeout_seconds = timeout_seconds
        self._lease_ms = int(lease_seconds * 1000)
        self._take = redis.register_script(_HERE.joinpath("take.lua").read_text())
        self._give = redis.register_script(_HERE.joinpath("give.lua").read_text())
        self._drop = redis.register_script(_DROP)
        self._renew = redis.register_script(_HERE.joinpath("renew.lua").read_text())

    async def take(self, scopes: Sequence[Scope], tokens: int, lease: str) -> Standing:
        """Count a request in every scope, or in none. Raises Unavailable."""
        arguments: list[str | int] = [lease, self._lease_ms, tokens]
        for scope in scopes:
            limits = scope.limits
            arguments += (
                limits.requests_per_minute,
                limits.tokens_per_minute,
                limits.tokens_per_day,
                limits.concurrent_streams,
            )
        granted, time_ms, *used = await self._run(self._take, _keys(scopes), arguments)
        uses = [Use(*used[at : at + _USE_FIELDS]) for at in range(0, len(used), _USE_FIELDS)]
        return Standing(bool(granted), time_ms, uses)

    async def give(self, scopes: Sequence[Scope], lease: str, taken_ms: int, foreseen: int, used: int) -> None:
        """End a request that was granted at `taken_ms`. Raises Unavailable."""
        counted = [n for scope in scopes for n in (scope.limits.tokens_per_minute, scope.limits.tokens_per_day)]
        await self._run(self._give, _keys(scopes), [lease, taken_ms, foreseen, used, *counted])

    async def renew(self, leases: Sequence[tuple[Scope, str]]) -> None:
        """Keep leases from ending; those that Redis has lost are back. Raises Unavailable."""
        keys = [_leases_key(scope) for scope, _ in leases]
        await self._run(self._renew, keys, [self._lease_ms, *(lease for _, lease in leases)])

    async def drop(self, leases: Sequence[tuple[Scope, str]]) -> None:
        """End leases, whoever renewed them last. Raises Unavailable."""
        await self._run(self._drop, [_leases_key(scope) for scope, _ in leases], [lease for _, lease in leases])

    async def _run(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[str | int]) -> list[int]:
        found: list[int] = await self._redis.ask(lambda: script(keys, arguments), timeout_seconds=self._timeout_seconds)
        return found


@asynccontextmanager
async def shared_counts(url: str, *, timeout_seconds: float, lease_seconds: float) -> AsyncIterator[SharedCounts]:
    """Counts at `url` for the block; it connects when it is first used."""
    pool = redis_pool(url, size=CONNECTIONS, timeout_seconds=timeout_seconds)
    async with pool as connections, Redis.from_pool(connections) as client:
        yield SharedCounts(client, timeout_seconds=timeout_seconds, lease_seconds=lease_seconds)


def _keys(scopes: Sequence[Scope]) -> list[str]:
    return [key for scope in scopes for key in (f"{_key(scope)}:counts", _leases_key(scope))]


def _leases_key(scope: Scope) -> str:
    return f"{_key(scope)}:streams"


def _key(scope: Scope) -> str:
    # The braces keep the keys of one tenant on one node of a cluster.
    return f"llmmesh:limits:{{{scope.tenant_id}}}:{scope.level}:{scope.name}"
