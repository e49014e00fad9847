"""Takes alerts from their table to the channels, however long a receiver is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import aiohttp

from meshkit.errors import DependencyUnavailable
from meshkit.log import get_logger
from services.billing.alerts.channels import Channel
from services.billing.alerts.sending import DeliveryFailed, Send, sender
from services.billing.database.alerts import AlertStore
from services.billing.metrics import ALERTS

MOST_TOGETHER = 20
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0

log = get_logger()


class Dispatcher:
    """Every alert is carried at least once by every channel that wants it."""

    def __init__(self, store: AlertStore, channels: Sequence[Channel], poll_seconds: float) -> None:
        self._store = store
        self._channels = channels
        self._poll_seconds = poll_seconds

    async def run(self) -> NoReturn:
        """Carry alerts until cancelled, through any outage of the database or of a receiver."""
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
            for channel in self._channels:
                group.create_task(self._serve(channel, sender(channel, http)))
            await self._plan()
        raise AssertionError("planning never ends")

    async def _plan(self) -> NoReturn:
        while True:
            # Whoever follows the database says when it is lost.
            with suppress(DependencyUnavailable):
                await self._store.plan(self._channels)
            await asyncio.sleep(self._poll_seconds)

    async def _serve(self, channel: Channel, send: Send) -> NoReturn:
        carried_at = -channel.spacing_seconds
        while True:
            waited = time.monotonic() - carried_at
            with suppress(DependencyUnavailable):
                if waited >= channel.spacing_seconds and await self._carry(channel.name, send):
                    carried_at = time.monotonic()
            await asyncio.sleep(self._poll_seconds)

    async def _carry(self, name: str, send: Send) -> bool:
        """Carry what is due, as one message; whether there was anything."""
        due = await self._store.claim(name, most=MOST_TOGETHER)
        if not due:
            return False
        try:
            await send(due)
        except DeliveryFailed as error:
            ALERTS.labels(name, "failed").inc(len(due))
            attempts = max(delivery.attempts for delivery in due)
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(attempts - 1, 20), LONGEST_PAUSE_SECONDS)
            log.warning("alerts_not_taken", channel=name, alerts=len(due), error=str(error), pause_seconds=pause)
            await self._store.again([delivery.id for delivery in due], pause)
        else:
            ALERTS.labels(name, "sent").inc(len(due))
            await self._store.sent([delivery.id for delivery in due])
        return True
