"""Exact answers in Redis."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError, ResponseError

from meshkit.background import in_background
from meshkit.dependency import Dependency, Unavailable
from meshkit.redis_pool import redis_pool
from services.cache.coalescing import Coalescer
from services.cache.lane import ReadLane

PURGE_SECONDS = 10.0
"""Longest that one step of a purge may take; a purge is not on the path of a chat."""
SCAN_STEP = 1000
WRITE_SECONDS = 0.25
"""Longest that a write may take; nobody's answer waits for it, and a lost write costs a model call."""
LEASE_PREFIX = "llmmesh:lease:"
PURGE_PREFIX = "llmmesh:purged:"
PURGE_KEPT_MS = 3_600_000
"""How long a purge is remembered: longer than any answer takes from its question to the store."""

_NOTE_PURGE = """
local time = redis.call('TIME')
local latest = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] ~= '' then latest = math.min(latest, tonumber(ARGV[2])) end
local before = redis.call('GET', KEYS[1])
if before then latest = math.max(latest, tonumber(before)) end
redis.call('SET', KEYS[1], latest, 'PX', ARGV[1])
"""
_PUT = """
for place = 2, #KEYS do
  local purged = redis.call('GET', KEYS[place])
  if purged and tonumber(purged) >= tonumber(ARGV[3]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""One step, so that no purge comes between the check and the write."""
_TAKE_LEASE = """
local entry = redis.call('GET', KEYS[1])
if entry and redis.sha1hex(entry) ~= ARGV[3] then return entry end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
"""One step, so that an answer stored between a look-up and the lease is found."""
_RELEASE_LEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


Chosen: TypeAlias = Callable[[str, bytes], bool]
"""Whether a purge takes an entry, by its key and bytes."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What an attempt to take a lease came to."""

    entry: bytes | None = None
    """An answer is there already: no lease is needed."""
    taken: bool = False


class ExactStore:
    """Answers by exact key. Every operation ends at its deadline, a frozen Redis included."""

    def __init__(self, pool: BlockingConnectionPool, *, timeout_seconds: float) -> None:
        self._redis = Redis(connection_pool=pool)
        self._lane = ReadLane(pool)
        self._dependency = Dependency("redis", faults=(RedisError,), refusals=(ResponseError,))
        self._note_purge = self._redis.register_script(_NOTE_PURGE)
        self._put = self._redis.register_script(_PUT)
        self._take_lease = self._redis.register_script(_TAKE_LEASE)
        self._release_lease = self._redis.register_script(_RELEASE_LEASE)
        self._timeout_seconds = timeout_seconds
        self._lookups = Coalescer(self._fetch, timeout_seconds=timeout_seconds)

    async def get(self, key: str) -> bytes | None:
        """Read an entry; None when there is none.

        Raises:
            Unavailable: If Redis is away.
        """
        if self._dependency.is_on_trial:
            raise Unavailable("redis is away")  # nobody else waits for the outcome
        return await self._lookups.get(key)

    async def put(self, key: str, entry: bytes, *, ttl_seconds: float, notes: Sequence[str], asked: float) -> bool:
        """Write an entry that Redis forgets after `ttl_seconds`; False, and no entry, when it was purged since asked.

        Raises:
            Unavailable: If Redis is away.
        """
        ttl_ms = max(1, round(ttl_seconds * 1000))
        keys = [key, *(PURGE_PREFIX + note for note in notes)]
        arguments: list[bytes | int] = [entry, ttl_ms, int(asked * 1000)]
        said = await self._dependency.ask(lambda: self._put(keys, arguments), timeout_seconds=WRITE_SECONDS)
        return bool(said)

    async def note_purge(self, note: str, stored_until: float | None = None) -> None:
        """Note that a purge begins: answers that it takes, to questions asked until now, are not written any more.

        Of a purge of what was stored until some time (Unix seconds), those asked until then.

        Raises:
            Unavailable: If Redis is away.
        """
        keys = [PURGE_PREFIX + note]
        arguments: list[int | str] = [PURGE_KEPT_MS, "" if stored_until is None else int(stored_until * 1000)]
        await self._dependency.ask(lambda: self._note_purge(keys, arguments), timeout_seconds=PURGE_SECONDS)

    async def was_purged(self, notes: Sequence[str], asked: float) -> bool:
        """Whether a purge noted so began since a question was asked (Unix seconds).

        Raises:
            Unavailable: If Redis is away.
        """
        keys = [PURGE_PREFIX + note for note in notes]
        said = await self._dependency.ask(lambda: self._redis.mget(keys), timeout_seconds=PURGE_SECONDS)
        return any(purged is not None and int(purged) >= int(asked * 1000) for purged in said)

    async def take_lease(self, key: str, token: str, *, seconds: float, useless: bytes = b"") -> Lease:
        """Take the sole right to answer `key` unless there is an entry, or another has it; it ends by itself.

        An entry that is known to be `useless` is as good as none.

        Raises:
            Unavailable: If Redis is away.
        """
        keys = [key, LEASE_PREFIX + key]
        arguments: list[str | int] = [token, max(1, round(seconds * 1000)), _digest(useless) if useless else ""]
        said = await self._dependency.ask(
            lambda: self._take_lease(keys, arguments), timeout_seconds=self._timeout_seconds
        )
        return Lease(entry=said) if isinstance(said, bytes) else Lease(taken=said == 1)

    async def release_lease(self, key: str, token: str) -> None:
        """Give the right back; nothing happens when it is no longer held by `token`.

        Raises:
            Unavailable: If Redis is away; the right then ends by itself.
        """
        await self._dependency.ask(
            lambda: self._release_lease([LEASE_PREFIX + key], [token]), timeout_seconds=self._timeout_seconds
        )

    async def forget(self, scope: str, key: str = "", chosen: Chosen | None = None, *, dry_run: bool = False) -> int:
        """Remove the entries whose key starts with `scope`, or only count them; returns how many.

        With a `key` that one at most, without a look at the others; with `chosen` those that it takes.

        Raises:
            Unavailable: If Redis is away; what was removed until then stays removed.
        """
        count = 0
        async for keys in self._steps(scope, key):
            taken = await self._those(keys, chosen) if key or chosen else keys
            if taken:
                count += len(taken) if dry_run else await self._unlink(taken)
        return count

    async def serve_lookups(self) -> None:
        """Answer `get` until cancelled."""
        try:
            await self._lookups.run()
        finally:
            await self._lane.close()

    async def _fetch(self, keys: Sequence[str], timeout_seconds: float) -> Sequence[bytes | None]:
        return await self._dependency.ask(lambda: self._lane.fetch(keys), timeout_seconds=timeout_seconds)

    async def _steps(self, scope: str, key: str) -> AsyncIterator[list[bytes | str]]:
        if key:
            if key.startswith(scope):
                yield [key]
            return
        cursor = -1
        while cursor:
            cursor, keys = await self._scan(max(cursor, 0), f"{scope}*")
            if keys:
                yield keys

    async def _those(self, keys: list[bytes | str], chosen: Chosen | None) -> list[bytes | str]:
        """Those that are there and chosen, if not all are."""
        entries = await self._dependency.ask(lambda: self._redis.mget(keys), timeout_seconds=PURGE_SECONDS)
        return [
            key
            for key, entry in zip(keys, entries, strict=True)
            if isinstance(entry, bytes)
            and (chosen is None or chosen(key.decode() if isinstance(key, bytes) else key, entry))
        ]

    async def _scan(self, cursor: int, pattern: str) -> tuple[int, list[bytes | str]]:
        return await self._dependency.ask(
            lambda: self._redis.scan(cursor, match=pattern, count=SCAN_STEP), timeout_seconds=PURGE_SECONDS
        )

    async def _unlink(self, keys: list[bytes | str]) -> int:
        return await self._dependency.ask(lambda: self._redis.unlink(*keys), timeout_seconds=PURGE_SECONDS)


def _digest(entry: bytes) -> str:
    return hashlib.sha1(entry, usedforsecurity=False).hexdigest()


@asynccontextmanager
async def exact_store(url: str, *, pool_size: int, timeout_seconds: float) -> AsyncIterator[ExactStore]:
    """Open the store for the block; Redis need not be there yet."""
    async with redis_pool(url, size=pool_size, timeout_seconds=timeout_seconds) as pool:
        store = ExactStore(pool, timeout_seconds=timeout_seconds)
        async with in_background(store.serve_lookups()):
            yield store
