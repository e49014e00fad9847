"""Opens the channels to the other rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceStub
from llmmesh.audit.v1.contents_pb2_grpc import ContentsServiceStub
from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceStub
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceStub
from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceStub
from llmmesh.router.v1.router_pb2_grpc import RouterServiceStub
from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceStub
from meshkit.client import connect
from services.gateway.config import GatewayConfig
from services.gateway.peers.billing import BillingPeer
from services.gateway.peers.cache import CachePeer
from services.gateway.peers.guard import GuardPeer
from services.gateway.peers.router import RouterPeer

if TYPE_CHECKING:
    from llmmesh.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub
    from llmmesh.audit.v1.contents_pb2_grpc import ContentsServiceAsyncStub
    from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceAsyncStub
    from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub
    from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceAsyncStub
    from llmmesh.router.v1.router_pb2_grpc import RouterServiceAsyncStub
    from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Peers:
    """The rooms the gateway calls."""

    cache: CachePeer
    guard: GuardPeer
    billing: BillingPeer
    router: RouterPeer


@asynccontextmanager
async def connected(config: GatewayConfig) -> AsyncIterator[Peers]:
    """Hold channels to all rooms; none of them need be there yet."""
    async with AsyncExitStack() as stack:
        yield Peers(
            await _cache(stack, config),
            await _guard(stack, config),
            await _billing(stack, config),
            await _router(stack, config),
        )


async def _cache(stack: AsyncExitStack, config: GatewayConfig) -> CachePeer:
    target = config.cache_target or config.mesh_target
    stub = await stack.enter_async_context(connect(target, CacheServiceStub))
    return CachePeer(cast("CacheServiceAsyncStub", stub), config.cache_timeout_seconds, config.semantic_timeout_seconds)


async def _guard(stack: AsyncExitStack, config: GatewayConfig) -> GuardPeer:
    target = config.guard_target or config.mesh_target
    stub = await stack.enter_async_context(connect(target, GuardServiceStub))
    return GuardPeer(cast("GuardServiceAsyncStub", stub), config.guard_timeout_seconds, config.answer_timeout_seconds)


async def _billing(stack: AsyncExitStack, config: GatewayConfig) -> BillingPeer:
    target = config.billing_target or config.mesh_target
    billing = await stack.enter_async_context(connect(target, BillingServiceStub))
    tenants = await stack.enter_async_context(connect(target, TenantServiceStub))
    audit = await stack.enter_async_context(connect(target, AuditServiceStub))
    contents = await stack.enter_async_context(connect(target, ContentsServiceStub))
    return BillingPeer(
        cast("BillingServiceAsyncStub", billing),
        cast("TenantServiceAsyncStub", tenants),
        cast("AuditServiceAsyncStub", audit),
        cast("ContentsServiceAsyncStub", contents),
        config.billing_timeout_seconds,
        config.policy_resync_seconds,
    )


async def _router(stack: AsyncExitStack, config: GatewayConfig) -> RouterPeer:
    target = config.router_target or config.mesh_target
    stub = await stack.enter_async_context(connect(target, RouterServiceStub))
    return RouterPeer(cast("RouterServiceAsyncStub", stub), config.answer_timeout_seconds)
