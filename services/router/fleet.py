"""The deployments of one routes file, and the change to those of the next under requests that go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from services.router.decision import Decider
from services.router.deployment import Deployment
from services.router.egress import Egress
from services.router.experiments.shadows import Shadowed
from services.router.experiments.trials import Trials


@dataclass(slots=True, eq=False)
class Fleet:
    """What one request sees from its beginning to its end."""

    deployments: Sequence[Deployment]
    """Shadows, too."""
    decider: Decider
    egress: Egress
    trials: Trials
    shadows: Sequence[Shadowed] = ()
    routes_version: str = ""
    """Of the routes file."""
    users: int = 0
    """Requests under way."""


class Roster:
    """The fleet in force. One that was replaced lives on until its last request has ended; then it is released."""

    def __init__(self, fleet: Fleet, release: Callable[[Fleet], Awaitable[None]]) -> None:
        self.fleet = fleet
        self._release = release
        self._ended: asyncio.Queue[Fleet] = asyncio.Queue()

    @contextmanager
    def held(self) -> Iterator[Fleet]:
        """The fleet in force now, kept for the block whatever comes into force meanwhile."""
        fleet = self.fleet
        fleet.users += 1
        try:
            yield fleet
        finally:
            fleet.users -= 1
            self._end_if_unused(fleet)

    def replace(self, fleet: Fleet) -> None:
        """Put another fleet in force for the requests to come."""
        before, self.fleet = self.fleet, fleet
        self._end_if_unused(before)

    async def release_ended(self) -> None:
        """Release fleets as they end, until cancelled."""
        while True:
            await self._release(await self._ended.get())

    def _end_if_unused(self, fleet: Fleet) -> None:
        if not fleet.users and fleet is not self.fleet:
            # Never full: there are as many as there were changes of the file.
            self._ended.put_nowait(fleet)
