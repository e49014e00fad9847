"""What the router knows of each deployment from calling it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.router.breaker import Breaker, BreakerPolicy
from services.router.deployment import Deployment
from services.router.measures import SHARE_PERCENT
from services.router.vitals import Vitals


@dataclass(frozen=True, slots=True)
class Standing:
    """One deployment's: whether to call it, and how it answers."""

    breaker: Breaker = field(default_factory=Breaker)
    vitals: Vitals = field(default_factory=Vitals)


class Standings(dict[str, Standing]):
    """By name: of the deployments given, and of any that is asked about later."""

    def __init__(self, policy: BreakerPolicy, deployments: Iterable[Deployment] = ()) -> None:
        super().__init__()
        self._policy = policy
        for deployment in deployments:
            self.__missing__(deployment.name)

    def __missing__(self, name: str) -> Standing:
        standing = self[name] = Standing(Breaker(self._policy, random.random))
        SHARE_PERCENT.labels(name).set_function(lambda: standing.breaker.share_percent(time.monotonic()))
        return standing
