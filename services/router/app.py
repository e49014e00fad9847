"""Puts the router together."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceStub
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceStub
from llmmesh.router.v1.router_pb2_grpc import add_RouterServiceServicer_to_server
from meshkit.background import in_background
from meshkit.client import connect
from meshkit.log import get_logger
from meshkit.reloading import LoadMeters, Reloader
from meshkit.revocation import following_revocations
from meshkit.server import Mount, running
from services.router.bulletin import Bulletin
from services.router.checks import HealthChecks
from services.router.config import RouterConfig
from services.router.decision import Decider
from services.router.egress import Egress
from services.router.experiments.shadows import shadowed
from services.router.experiments.trials import Trials
from services.router.explaining import Explainer
from services.router.failover import Failover
from services.router.fleet import Fleet, Roster
from services.router.inspection import Inspection
from services.router.latencies import FirstTokenTimes
from services.router.lessons import Lessons, lessons
from services.router.measures import ROUTES_LOADS, ROUTES_REFUSED
from services.router.observing import Observation, ObservedRouter
from services.router.prices import fresh_prices
from services.router.providers.adapters import Providers, opened_providers
from services.router.ranking import Price
from services.router.references import named_files
from services.router.routes import Routes, load_routes
from services.router.routing import Router
from services.router.rules import RuleBook
from services.router.servicer import RouterServicer
from services.router.shadowing import Shadowing, spent
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
    reloader = _routes(config)
    standings = Standings(config.breaker_policy, reloader.current.deployments)
    async with (
        shared_breakers(config.redis_url, Bulletin(standings)),
        connect(config.mesh_target, InferenceServiceStub) as inference,
        connect(config.mesh_target, BillingServiceStub) as billing,
        opened_providers(
            cast("InferenceServiceAsyncStub", inference),
            os.environ,
            config.provider_connections,
            config.coalesce_seconds,
        ) as providers,
        lessons(config) as learned,
        fresh_prices(cast("BillingServiceAsyncStub", billing), config.price_refresh_seconds) as prices,
    ):
        fleets = _Fleets(providers, learned, prices)
        async with _serving(config, reloader, standings, fleets) as port:
            yield port


@asynccontextmanager
async def _serving(
    config: RouterConfig, reloader: Reloader[Routes], standings: Standings, fleets: _Fleets
) -> AsyncIterator[int]:
    prices, learned, failover = fleets.prices, fleets.learned, Failover(standings)
    roster = Roster(fleets.of(reloader.current), lambda ended: fleets.providers.release(ended.deployments))
    routing = Router(roster, prices, failover, fleets.first_tokens)
    explainer = Explainer(roster, failover.seconds_until_free, fleets.first_tokens.expected)
    checks = HealthChecks(roster, standings, config.check_policy)
    shadowing = Shadowing(routing, roster, Observation(prices, [learned.tallying.note, spent]))
    observed = ObservedRouter(routing, Observation(prices, learned.observers, shadowing.copy))
    servicer = RouterServicer(routing, observed, explainer, Inspection(roster, standings), reloader, learned)
    mount = Mount(add_RouterServiceServicer_to_server, servicer)

    def renew(routes: Routes) -> None:
        roster.replace(fleets.of(routes))

    async with (
        shadowing.open(),
        in_background(checks.run(), roster.release_ended(), reloader.watch(renew)),
        following_revocations(config.mesh_target) as revoked,
        running([mount], config, room="router", revoked=revoked) as port,
    ):
        with _on_hangup(reloader.reload_now):
            yield port


@dataclass(frozen=True, slots=True)
class _Fleets:
    """Makes what routes files describe."""

    providers: Providers
    learned: Lessons
    prices: Mapping[str, Price]
    first_tokens: FirstTokenTimes = field(default_factory=FirstTokenTimes)

    def of(self, routes: Routes) -> Fleet:
        """The fleet of a file that comes into force."""
        self.learned.follow(routes)
        ways = strategies(routes.strategies.quality_share, self.first_tokens.expected, self.learned.strategy)
        rules = RuleBook(routes.rules, routes.deployments)
        decider = Decider(routes.answering, routes.strategies, rules, ways, self.prices)
        for each in routes.left_out:
            log.info("deployment_left_out", deployment=each.name, not_set=each.credential)
        egress = Egress(self.providers.open(routes.deployments))
        trials = Trials(routes.experiments, routes.prompts, decider)
        return Fleet(routes.deployments, decider, egress, trials, shadowed(routes.deployments), routes.version)


def _routes(config: RouterConfig) -> Reloader[Routes]:
    path, meters = config.routes, LoadMeters(ROUTES_LOADS, ROUTES_REFUSED)

    def files() -> list[Path]:
        return [path, *named_files(path)]

    return Reloader("routes", files, lambda: load_routes(path, os.environ), meters, config.routes_poll_seconds)


@contextmanager
def _on_hangup(react: Callable[[], None]) -> Iterator[None]:
    """Call `react` at every SIGHUP during the block."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, react)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
