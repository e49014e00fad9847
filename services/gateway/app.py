"""Puts the gateway together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from llmmesh.gateway.v1.gateway_pb2_grpc import add_GatewayServiceServicer_to_server
from llmmesh.gateway.v1.openai_pb2_grpc import add_OpenAIServiceServicer_to_server
from meshkit.server import Mount, running
from services.gateway.accounts import Accounts
from services.gateway.background import Outboxes, background
from services.gateway.catalogue import Catalogue
from services.gateway.chat import Chat
from services.gateway.config import GatewayConfig
from services.gateway.embedding import Embedding
from services.gateway.explaining import Explaining
from services.gateway.flights import Flights
from services.gateway.guard_policy import GuardPolicy
from services.gateway.limits.limiter import Limiter
from services.gateway.limits.shared import shared_counts
from services.gateway.openai.servicer import OpenAIServicer
from services.gateway.peers.connections import connected
from services.gateway.policies import PolicyTable
from services.gateway.resources import Knowledge, Resources
from services.gateway.servicer import GatewayServicer


@asynccontextmanager
async def gateway(config: GatewayConfig) -> AsyncIterator[int]:
    """Run the gateway; yields the port it listens on.

    On leaving, running calls end first, then what is owed to other rooms is delivered.
    """
    async with connected(config) as peers, _limiter(config) as limiter:
        known = Knowledge(
            PolicyTable(peers.billing.key, config.policy_max_stale_seconds, config.policy_arrival_seconds),
            Catalogue(),
            GuardPolicy(config.guard_policy_max_stale_seconds),
        )
        outboxes = Outboxes.to(peers, config)
        flights = Flights(here_seconds=config.answer_timeout_seconds, elsewhere_seconds=config.flight_seconds)
        accounts = Accounts(
            outboxes.events.put,
            outboxes.records.put,
            outboxes.uses.put,
            outboxes.contents.put,
            peers.billing.record_events,
        )
        resources = Resources(peers, known, accounts, outboxes.settlements.put, outboxes.tell_cache, flights, limiter)
        async with (
            background(peers, known, outboxes, limiter, config),
            running(
                _mounts(resources, config), config, room="gateway", ready=known.usable, revoked=known.policies.revoked
            ) as port,
        ):
            yield port


@asynccontextmanager
async def _limiter(config: GatewayConfig) -> AsyncIterator[Limiter]:
    async with AsyncExitStack() as stack:
        shared = None
        if url := config.redis_url.get_secret_value():
            counts = shared_counts(
                url, timeout_seconds=config.limits_timeout_seconds, lease_seconds=config.stream_lease_seconds
            )
            shared = await stack.enter_async_context(counts)
        yield Limiter(shared, local_share=config.limits_local_share, lease_seconds=config.stream_lease_seconds)


def _mounts(resources: Resources, config: GatewayConfig) -> Sequence[Mount]:
    chat, embedding = Chat(resources, config), Embedding(resources)
    typed = GatewayServicer(chat, embedding, Explaining(resources), resources.known)
    openai = OpenAIServicer(chat, embedding, resources.known, config.default_model)
    return (
        Mount(add_GatewayServiceServicer_to_server, typed),
        Mount(add_OpenAIServiceServicer_to_server, openai),
    )
