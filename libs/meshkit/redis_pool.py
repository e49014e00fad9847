"""Connections to Redis that wait for nothing longer than they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


@asynccontextmanager
async def redis_pool(url: str, *, size: int, timeout_seconds: float) -> AsyncIterator[BlockingConnectionPool]:
    """Hold connections for the block; Redis need not be there yet. Deadlines of operations are their caller's.

    A burst of requests waits for a free connection: it is no outage.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=size,
        timeout=timeout_seconds,
        socket_timeout=None,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
        protocol=2,
    )
    try:
        yield pool
    finally:
        await pool.disconnect()
