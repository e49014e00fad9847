"""What goes on beside the requests: memory kept current, records and settlements delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llmmesh.audit.v1 import audit_pb2, contents_pb2
from llmmesh.billing.v1 import billing_pb2
from llmmesh.cache.v1 import cache_pb2
from meshkit.background import in_background
from meshkit.log import get_logger
from services.gateway.config import GatewayConfig
from services.gateway.limits.limiter import Limiter
from services.gateway.outbox import Outbox, OutboxLimits
from services.gateway.peers.billing import Settlement
from services.gateway.peers.connections import Peers
from services.gateway.policies import follow_policies
from services.gateway.refresh import refreshing
from services.gateway.resources import CacheOrder, Knowledge

RECORD_BATCH = 200
SETTLEMENT_WORKERS = 4
STORE_WORKERS = 32
"""An answer is under way until the semantic level has it too, which may take seconds."""
LEASE_WORKERS = 4

log = get_logger()


@dataclass(frozen=True, slots=True)
class Outboxes:
    """Everything on its way to another room without a request waiting for it."""

    settlements: Outbox[Settlement]
    records: Outbox[billing_pb2.UsageRecord]
    events: Outbox[audit_pb2.Event]
    contents: Outbox[contents_pb2.KeepContentsRequest]
    leases: Outbox[CacheOrder]
    answers: Outbox[CacheOrder]
    uses: Outbox[cache_pb2.CacheUse]

    @classmethod
    def to(cls, peers: Peers, config: GatewayConfig) -> Outboxes:
        """Outboxes that deliver to `peers`; billing's keep trying, the cache's does not."""

        async def settle(batch: Sequence[Settlement]) -> None:
            for settlement in batch:
                await peers.billing.settle(settlement)

        async def tell_cache(batch: Sequence[CacheOrder]) -> None:
            for order in batch:
                await peers.cache.tell(order.owner, order.request)

        batched = OutboxLimits(
            config.record_capacity, batch_size=RECORD_BATCH, linger_seconds=config.record_flush_seconds
        )
        return cls(
            settlements=Outbox(
                "settlements", settle, OutboxLimits(config.settlement_capacity, workers=SETTLEMENT_WORKERS)
            ),
            records=Outbox("usage", peers.billing.record_usage, batched),
            events=Outbox("audit", peers.billing.record_events, batched),
            contents=Outbox("contents", peers.billing.keep_contents, OutboxLimits(config.store_capacity)),
            uses=Outbox("cache_uses", peers.cache.record_uses, batched),
            leases=Outbox("leases", tell_cache, OutboxLimits(config.store_capacity, attempts=1, workers=LEASE_WORKERS)),
            answers=Outbox(
                "answers", tell_cache, OutboxLimits(config.store_capacity, attempts=1, workers=STORE_WORKERS)
            ),
        )

    def tell_cache(self, order: CacheOrder) -> bool:
        """Have the cache told; leases wait for no answers, for others wait for them. False when there is no room."""
        gives_back = isinstance(order.request, cache_pb2.ReleaseLeaseRequest)
        return (self.leases if gives_back else self.answers).put(order)

    def each(self) -> Sequence[Outbox[Any]]:
        """All of them, the most important first."""
        return (self.settlements, self.records, self.events, self.contents, self.leases, self.answers, self.uses)


@asynccontextmanager
async def background(
    peers: Peers, known: Knowledge, outboxes: Outboxes, limiter: Limiter, config: GatewayConfig
) -> AsyncIterator[None]:
    """Keep memory and leases current and deliver what is owed for the block; at its end the outboxes are drained."""

    async def load_models() -> None:
        known.catalogue.replace(await peers.router.models())

    async def load_guard_policy() -> None:
        known.guard_policy.learn(await peers.guard.policy_version())

    work = [
        follow_policies(known.policies, peers.billing.policies),
        refreshing("models", load_models, config.catalogue_refresh_seconds),
        refreshing("guard_policy", load_guard_policy, config.guard_policy_refresh_seconds),
        limiter.keep_leases(),
        *(outbox.run() for outbox in outboxes.each()),
    ]
    async with in_background(*work):
        try:
            yield
        finally:
            await _drain(outboxes, config.outbox_drain_seconds)


async def _drain(outboxes: Outboxes, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            for outbox in outboxes.each():
                await outbox.drain()
    except TimeoutError:
        log.error("outboxes_lost", items=sum(len(outbox) for outbox in outboxes.each()))
