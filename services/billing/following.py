"""Keeps what is held in memory, policies and prices, in step with the database."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from meshkit.errors import DependencyUnavailable
from meshkit.log import get_logger
from services.billing.database.engine import Database
from services.billing.database.keys import KeyStore
from services.billing.database.notifications import listening
from services.billing.database.prices import PriceStore
from services.billing.database.tenants import TenantStore
from services.billing.prices import PriceBook
from services.billing.tenants.policies import Policies

PING_SECONDS = 5.0
RETRY_SECONDS = 0.25
GRACE_SECONDS = 3.0
"""How long the database may be lost before watchers are told that their policies may be old."""

log = get_logger()


class Following:
    """Reads everything, then every change announced; after a lost connection, everything again."""

    def __init__(
        self,
        database: Database,
        *,
        tenants: TenantStore,
        keys: KeyStore,
        prices: PriceStore,
        policies: Policies,
        book: PriceBook,
        answer_seconds: float,
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._keys = keys
        self._prices = prices
        self._policies = policies
        self._book = book
        self._answer_seconds = answer_seconds
        self._losing: asyncio.TimerHandle | None = None

    async def run(self) -> NoReturn:
        """Follow until cancelled, through any outage of the database."""
        try:
            while True:
                try:
                    await self._follow()
                except DependencyUnavailable as error:
                    self._lost(error)
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            if self._losing:
                self._losing.cancel()

    async def _follow(self) -> None:
        # Listening comes before reading: what changes in between is announced, and read twice at worst.
        async with listening(
            self._database.address, ping_seconds=PING_SECONDS, answer_seconds=self._answer_seconds
        ) as listener:
            await self._read_prices()
            self._policies.reset(await self._tenants.watched(), await self._keys.watched())
            self._found()
            async for announcement in listener.announcements():
                await self._read(announcement)

    async def _read(self, announcement: str) -> None:
        kind, _, changed_id = announcement.partition(" ")
        if kind == "prices":
            await self._read_prices()
        elif kind == "tenant":
            tenant = await self._tenants.get(changed_id)
            if tenant:
                self._policies.put_tenant(tenant)
        elif kind == "key":
            key = await self._keys.get(changed_id)
            if key:
                self._policies.put_key(key)
        elif kind == "keys":
            for key in await self._keys.watched(changed_id):
                self._policies.put_key(key)

    async def _read_prices(self) -> None:
        self._book.load(*await self._prices.all())

    def _lost(self, error: DependencyUnavailable) -> None:
        if self._losing is None:
            log.warning("database_lost", cause=type(error.__cause__).__name__)
            self._losing = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._policies.lose)

    def _found(self) -> None:
        if self._losing:
            log.info("database_found")
            self._losing.cancel()
            self._losing = None
