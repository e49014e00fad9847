"""Asks deployments how they are while no calls tell: beside the requests, never in their way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshkit.log import get_logger
from services.router.breaker import BreakerState
from services.router.deployment import Deployment
from services.router.egress import Egress
from services.router.fleet import Roster
from services.router.measures import CHECKS
from services.router.providers.provider import Health
from services.router.standing import Standing

log = get_logger()


@dataclass(frozen=True, slots=True)
class CheckPolicy:
    """How often which deployments are asked."""

    every_seconds: float
    """0 for never."""
    idle_seconds: float
    """A deployment that answers is asked only when no call has told anything for so long."""
    at_once: int


class HealthChecks:
    """Tells breakers what deployments say of themselves. One that is loading its model is neither well nor ill."""

    def __init__(
        self,
        roster: Roster,
        standings: Mapping[str, Standing],
        policy: CheckPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roster = roster
        self._standings = standings
        self._policy = policy
        self._clock = clock
        self._places = asyncio.Semaphore(policy.at_once)

    async def run(self) -> None:
        """Check until cancelled."""
        while self._policy.every_seconds:
            await asyncio.sleep(self._policy.every_seconds)
            await self.check()

    async def check(self) -> None:
        """Ask every deployment whose state only an answer would tell."""
        with self._roster.held() as fleet:
            async with asyncio.TaskGroup() as group:
                for deployment in filter(self._is_due, fleet.deployments):
                    group.create_task(self._ask(deployment, fleet.egress))

    def _is_due(self, deployment: Deployment) -> bool:
        standing, now = self._standings[deployment.name], self._clock()
        answers = standing.breaker.state(now) is BreakerState.CLOSED
        return not answers or standing.vitals.idle_seconds(now) >= self._policy.idle_seconds

    async def _ask(self, deployment: Deployment, egress: Egress) -> None:
        async with self._places:
            condition = await egress.condition(deployment)
        CHECKS.labels(deployment.name, condition.health).inc()
        if condition.health is Health.WARMING:
            return
        self._standings[deployment.name].breaker.checked(healthy=condition.health is Health.READY, now=self._clock())
        if condition.health is Health.UNAVAILABLE:
            log.warning("health_check_failed", deployment=deployment.name, fault=condition.detail)
