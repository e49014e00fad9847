"""Puts the router together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceStub
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceStub
from llmmesh.router.v1.router_pb2_grpc import add_RouterServiceServicer_to_server
from meshkit.background import in_background
from meshkit.client import connect
from meshkit.log import get_logger
from meshkit.server import Mount, running
from services.router.bulletin import Bulletin
from services.router.checks import HealthChecks
from services.router.config import RouterConfig
from services.router.decision import Decider
from services.router.egress import Egress
from services.router.explaining import Explainer
from services.router.failover import Failover
from services.router.inspection import Inspection
from services.router.latencies import FirstTokenTimes
from services.router.prices import fresh_prices
from services.router.providers.adapters import opened_providers
from services.router.routes import load_routes
from services.router.routing import Router
from services.router.rules import RuleBook
from services.router.servicer import RouterServicer
from services.router.sharing import shared_breakers
from services.router.standing import Standings
from services.router.strategies import strategies

if TYPE_CHECKING:
    from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceAsyncStub
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub

log = get_logger()


@asynccontextmanager
async def router(config: RouterConfig) -> AsyncIterator[int]:
    """Run the router; yields the port it listens on."""
    routes = load_routes(config.routes, os.environ)
    deployments = routes.deployments
    for each in routes.left_out:
        log.info("deployment_left_out", deployment=each.name, not_set=each.credential)
    standings = Standings(config.breaker_policy, deployments)
    async with (
        shared_breakers(config.redis_url, Bulletin(standings)),
        connect(config.mesh_target, InferenceServiceStub) as inference,
        connect(config.mesh_target, BillingServiceStub) as billing,
        opened_providers(
            deployments,
            cast("InferenceServiceAsyncStub", inference),
            os.environ,
            config.provider_connections,
        ) as providers,
        fresh_prices(cast("BillingServiceAsyncStub", billing), config.price_refresh_seconds) as prices,
    ):
        egress = Egress(providers)
        first_tokens = FirstTokenTimes()
        ways = strategies(routes.strategies.quality_share, first_tokens.expected)
        decider = Decider(deployments, routes.strategies, RuleBook(routes.rules, deployments), ways, prices)
        failover = Failover(standings)
        routing = Router(deployments, decider, egress, prices, failover, first_tokens, config.coalesce_seconds)
        explainer = Explainer(decider, failover.seconds_until_free, first_tokens.expected)
        inspection = Inspection(deployments, egress, standings)
        checks = HealthChecks(deployments, egress, standings, config.check_policy)
        mount = Mount(add_RouterServiceServicer_to_server, RouterServicer(routing, explainer, inspection))
        async with in_background(checks.run()), running([mount], config, room="router") as port:
            yield port
