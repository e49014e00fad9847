"""Grants requests within the limits of their callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from meshkit.dependency import Unavailable
from services.gateway.limits.local import LocalCounts
from services.gateway.limits.scope import Limits, Scope
from services.gateway.limits.shared import SharedCounts
from services.gateway.limits.standing import Standing, limit_headers, refusal
from services.gateway.measures import RATE_LIMITED, RATE_LIMITS_LOCAL

RENEWALS_PER_LEASE = 3


class Permit:
    """A request that was granted, until it is settled."""

    def __init__(self, limiter: Limiter, grant: Grant, used: Callable[[], int]) -> None:
        self._limiter = limiter
        self._grant = grant
        self._used = used
        self._settled = False

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """What its caller is told of its limits."""
        return self._grant.headers

    async def settle(self) -> None:
        """End the request; the first time counts. Costs at most the deadline of Redis."""
        if not self._settled:
            self._settled = True
            await self._limiter.end(self._grant, self._used())


@dataclass(frozen=True, slots=True)
class Grant:
    """What was counted for one request."""

    scopes: Sequence[Scope]
    lease: str
    tokens: int
    """Foreseen."""
    headers: Sequence[tuple[str, str]]
    local_ms: int
    shared_ms: int | None
    """None when Redis knows nothing of it."""


class Limiter:
    """Counts in Redis; by itself, and only a share of every limit, while Redis is away or there is none.

    What Redis grants is counted here too, so that neither its loss nor its return starts anybody's minute anew.
    """

    def __init__(self, shared: SharedCounts | None, *, local_share: float, lease_seconds: float) -> None:
        self._shared = shared
        self._local = LocalCounts()
        self._local_share = local_share
        self._lease_seconds = lease_seconds
        self._under_way: dict[str, Grant] = {}

    @asynccontextmanager
    async def permit(
        self,
        scopes: Sequence[Scope],
        tokens: int,
        used: Callable[[], int],
        outlives: Callable[[], bool] = lambda: False,
    ) -> AsyncIterator[Permit]:
        """Count a request for the block; at its end `used` says how many tokens it took.

        A request that `outlives` the block is settled by whoever ends it.

        Raises:
            RateLimited: If one of the scopes has no room for it.
        """
        permit = Permit(self, await self._granted(scopes, tokens), used)
        try:
            yield permit
        finally:
            if not outlives():
                await permit.settle()

    async def end(self, grant: Grant, used: int) -> None:
        """End a request. While Redis is away its lease there ends by itself, and its tokens stay as foreseen."""
        self._under_way.pop(grant.lease, None)
        self._local.give(grant.scopes, grant.lease, grant.local_ms, grant.tokens, used)
        outlasting = [scope for scope in grant.scopes if scope.limits.outlasts_admission]
        if self._shared is not None and grant.shared_ms is not None and outlasting:
            with suppress(Unavailable):
                await self._shared.give(outlasting, grant.lease, grant.shared_ms, grant.tokens, used)

    async def keep_leases(self) -> None:
        """Renew what is under way, until cancelled: a gateway that dies gives its streams back by not doing it."""
        while True:
            await asyncio.sleep(self._lease_seconds / RENEWALS_PER_LEASE)
            leases = [
                (scope, grant.lease)
                for grant in self._under_way.values()
                for scope in grant.scopes
                if scope.limits.concurrent_streams and grant.shared_ms is not None
            ]
            if self._shared is not None and leases:
                with suppress(Unavailable):
                    await self._shared.renew(leases)
                    # What ended meanwhile may have been given back before it was renewed.
                    ended = [(scope, lease) for scope, lease in leases if lease not in self._under_way]
                    if ended:
                        await self._shared.drop(ended)

    async def _granted(self, scopes: Sequence[Scope], tokens: int) -> Grant:
        lease = uuid4().hex
        standing = await self._shared_standing(scopes, tokens, lease)
        RATE_LIMITS_LOCAL.set(standing is None)
        shared_ms = standing.time_ms if standing else None
        if standing is None:
            scopes = [replace(scope, limits=_share(scope.limits, self._local_share)) for scope in scopes]
            standing = self._local.take(scopes, tokens, lease)
            local_ms = standing.time_ms
        elif standing.granted:
            standing, local_ms = await self._confirmed(scopes, tokens, lease, standing)
        if not standing.granted:
            error = refusal(scopes, standing, tokens)
            RATE_LIMITED.labels(error.metadata["level"], error.metadata["limit"]).inc()
            raise error
        headers = limit_headers(scopes, standing, tokens)
        grant = self._under_way[lease] = Grant(scopes, lease, tokens, headers, local_ms, shared_ms)
        return grant

    async def _confirmed(
        self, scopes: Sequence[Scope], tokens: int, lease: str, shared: Standing
    ) -> tuple[Standing, int]:
        """What Redis granted, if there is room here too: Redis knows nothing of what was granted in its absence."""
        local = self._local.take(scopes, tokens, lease)
        if local.granted:
            return shared, local.time_ms
        if self._shared is not None:
            with suppress(Unavailable):
                await self._shared.give(scopes, lease, shared.time_ms, tokens, 0)
        return local, local.time_ms

    async def _shared_standing(self, scopes: Sequence[Scope], tokens: int, lease: str) -> Standing | None:
        if self._shared is None:
            return None
        try:
            return await self._shared.take(scopes, tokens, lease)
        except Unavailable:
            return None


def _share(limits: Limits, share: float) -> Limits:
    """A part of each limit, and at least one of each: no limit is never no limit."""

    def part(limit: int) -> int:
        return max(1, int(limit * share)) if limit else 0

    return Limits(
        part(limits.requests_per_minute),
        part(limits.tokens_per_minute),
        part(limits.tokens_per_day),
        part(limits.concurrent_streams),
    )
