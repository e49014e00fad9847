"""What can be told of every deployment: whether it says it is well, and how it has been answering."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from services.router.breaker import BreakerState
from services.router.deployment import Deployment
from services.router.fleet import Roster
from services.router.providers.provider import Condition, Health
from services.router.standing import Standing
from services.router.vitals import Figures


@dataclass(frozen=True, slots=True)
class Report:
    """One deployment now."""

    deployment: Deployment
    condition: Condition
    breaker: BreakerState
    share_percent: int
    seconds_left: float
    """Until it may be called; 0 when that is now."""
    figures: Figures


@dataclass(frozen=True, slots=True)
class Inspection:
    """Asks the deployments, and reads what the router has seen of them."""

    roster: Roster
    standings: Mapping[str, Standing]
    clock: Callable[[], float] = field(default=time.monotonic)

    async def reports(self) -> list[Report]:
        """Every deployment, by name."""
        with self.roster.held() as fleet:
            deployments = sorted(fleet.deployments, key=lambda deployment: deployment.name)
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(fleet.egress.condition(deployment)) for deployment in deployments]
        return [self._report(deployment, task.result()) for deployment, task in zip(deployments, asked, strict=True)]

    def _report(self, deployment: Deployment, condition: Condition) -> Report:
        standing, now = self.standings[deployment.name], self.clock()
        breaker = standing.breaker
        seconds = breaker.seconds_left(now)
        if condition.health is Health.READY and seconds:
            condition = Condition(Health.UNAVAILABLE, f"failed lately; left alone for another {seconds:.0f} s")
        return Report(
            deployment, condition, breaker.state(now), breaker.share_percent(now), seconds, standing.vitals.figures(now)
        )
