"""Prices, as billing knows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import grpc

from llmmesh.billing.v1 import billing_pb2
from meshkit.log import get_logger
from services.router.ranking import Price

if TYPE_CHECKING:
    from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceAsyncStub

CALL_SECONDS = 5.0
RETRY_SECONDS = 5.0

log = get_logger()


@asynccontextmanager
async def fresh_prices(billing: BillingServiceAsyncStub, refresh_seconds: float) -> AsyncIterator[Mapping[str, Price]]:
    """The prices by deployment, kept fresh in the background; the last known ones while billing is away."""
    prices: dict[str, Price] = {}
    refreshing = asyncio.create_task(_refresh(billing, refresh_seconds, prices))
    try:
        yield prices
    finally:
        refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await refreshing


async def _refresh(billing: BillingServiceAsyncStub, refresh_seconds: float, prices: dict[str, Price]) -> None:
    while True:
        try:
            answer = await billing.ListPrices(billing_pb2.ListPricesRequest(), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            log.warning("prices_not_refreshed", code=error.code().name, known=len(prices))
            await asyncio.sleep(min(RETRY_SECONDS, refresh_seconds))
            continue
        latest = {price.deployment: Price(price.base_input_micros, price.base_output_micros) for price in answer.prices}
        prices.clear()
        prices.update(latest)
        await asyncio.sleep(refresh_seconds)
