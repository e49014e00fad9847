"""Copies of requests for deployments on trial: how they go is measured, and nobody waits, sees or pays for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from meshkit.deadline import enter_deadline
from meshkit.errors import MeshError
from services.router.constraints import Limits, exclusions
from services.router.experiments.shadows import Shadowed
from services.router.fleet import Fleet, Roster
from services.router.hedging import may_be_asked_twice
from services.router.measures import SHADOW_COPIES, SHADOW_COST_MICROS, SHADOW_TOKENS
from services.router.observing import Chat, Observation
from services.router.ranking import Demand
from services.router.routing import Router

PERCENT = 100


@dataclass(slots=True)
class Shadowing:
    """Sends copies beside the answers that callers get; never more at once than each shadow allows."""

    router: Router
    roster: Roster
    observation: Observation
    chance: Callable[[], float] = random.random
    _under_way: dict[asyncio.Task[None], str] = field(default_factory=dict)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let copies run while the block does; those under way at its end are stopped."""
        try:
            yield
        finally:
            for task in list(self._under_way):
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    def copy(self, chat: Chat) -> None:
        """Have a request whose answer has begun copied, by chance and where constraints allow; returns at once."""
        fleet = self.roster.fleet
        for shadowed in fleet.shadows:
            if _is_for(shadowed, chat.demand) and self.chance() * PERCENT < shadowed.shadow.share_percent:
                self._send(shadowed, chat, fleet)

    def _send(self, shadowed: Shadowed, chat: Chat, fleet: Fleet) -> None:
        name, copy = shadowed.deployment.name, _copied(chat.demand)
        if not _may_go(shadowed, copy, fleet):
            return
        if list(self._under_way.values()).count(name) >= shadowed.shadow.at_once:
            SHADOW_COPIES.labels(name, "busy").inc()
            return
        SHADOW_COPIES.labels(name, "sent").inc()
        of_original, of_copy = shadowed.treatments(chat.asker)
        chat.counted_as.append(of_original)
        task = asyncio.create_task(self._ask(shadowed, Chat(chat.asker, replace(copy, treatment=of_copy))))
        self._under_way[task] = name
        task.add_done_callback(self._under_way.pop)

    async def _ask(self, shadowed: Shadowed, chat: Chat) -> None:
        """Let the shadow answer to the end, and drop it; what happened is told by the observation."""
        enter_deadline(None)  # the caller, whose deadline this task began with, does not wait for the copy
        answer = self.router.stream_copy(chat.demand, shadowed.deployment)
        with suppress(MeshError):
            async with aclosing(self.observation.through(chat, answer)) as events:
                async for _ in events:
                    pass


def spent(chat: Chat) -> None:
    """Count what a copy cost."""
    if chat.deployment is not None:
        SHADOW_TOKENS.labels(chat.deployment.name).inc(chat.input_tokens + chat.output_tokens)
        SHADOW_COST_MICROS.labels(chat.deployment.name).inc(chat.cost_micros)


def _is_for(shadowed: Shadowed, demand: Demand) -> bool:
    tags = shadowed.shadow.tags
    return shadowed.deployment.serves == demand.model and (not tags or not tags.isdisjoint(demand.caller.tags))


def _copied(demand: Demand) -> Demand:
    """The same request, allowed nowhere but at the shadows that the caller's policy allows."""
    limits = Limits(demand.shadows, demand.limits.data_class, demand.limits.residency)
    return replace(demand, limits=limits)


def _may_go(shadowed: Shadowed, copy: Demand, fleet: Fleet) -> bool:
    """Whether constraints and needs allow the copy, and nothing is done twice by it."""
    objections = fleet.decider.ruling(copy).objections
    barred = next(exclusions(shadowed.deployment, copy.limits, copy.needs, objections), None)
    return barred is None and may_be_asked_twice(copy.prompt)
