"""How long deployments take to their first token."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from services.router.deployment import Deployment

NEWEST_SHARE = 0.2
"""How much the newest measurement counts in the mean."""
FRESH_SECONDS = 300.0
"""A mean that nothing was added to for this long is forgotten: the deployment may be faster by now."""


@dataclass(slots=True)
class FirstTokenTimes:
    """The moving mean of each deployment's time to the first token."""

    clock: Callable[[], float] = time.monotonic
    _means: dict[str, tuple[float, float]] = field(default_factory=dict)

    def note(self, deployment: Deployment, seconds: float) -> None:
        """Count one measurement."""
        before = self._fresh(deployment)
        mean = seconds if before is None else before + NEWEST_SHARE * (seconds - before)
        self._means[deployment.name] = mean, self.clock()

    def expected(self, deployment: Deployment) -> float:
        """Seconds: the mean measured lately, else what the routes file expects, else 0, so that it gets measured."""
        measured = self._fresh(deployment)
        return deployment.first_token_seconds if measured is None else measured

    def _fresh(self, deployment: Deployment) -> float | None:
        mean, noted = self._means.get(deployment.name, (0.0, None))
        return None if noted is None or self.clock() - noted > FRESH_SECONDS else mean
