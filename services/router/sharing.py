"""Routers tell each other through Redis which deployments to leave alone. No request ever waits for it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from meshkit.background import in_background
from meshkit.log import get_logger
from meshkit.redis_pool import redis_pool
from services.router.bulletin import Bulletin, Event, News
from services.router.measures import SHARING

CHANNEL = "llmmesh:router:breakers"
LOOK_SECONDS = 0.1
REPEAT_SECONDS = 1.0
"""Everything that still holds is told this often, and that we are there."""
SILENCE_SECONDS = 3.0
"""Our own messages come back, so silence means that the subscription is dead."""
RETRY_SECONDS = 0.5
CONNECTIONS = 2
"""One to tell, one to hear."""
REDIS_SECONDS = 1.0
"""Longest that Redis may take."""

log = get_logger()


class Sharing:
    """Tells a channel our news and hears those of others; while Redis is away each router relies on itself."""

    def __init__(self, redis: Redis, bulletin: Bulletin) -> None:
        self._redis = redis
        self._bulletin = bulletin
        self._name = uuid.uuid4().hex

    async def tell(self) -> None:
        """Publish what is new as it happens, and what holds from time to time."""
        repeat_at = 0.0
        while True:
            now = asyncio.get_running_loop().time()
            news = self._bulletin.fresh()
            if now >= repeat_at:
                repeat_at = now + REPEAT_SECONDS
                await self._publish([*news, *self._bulletin.running()])
            elif news:
                await self._publish(news)
            await asyncio.sleep(LOOK_SECONDS)

    async def hear(self) -> None:
        """Follow the channel, and find it again when it is lost."""
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    async with asyncio.timeout(REDIS_SECONDS):
                        await subscription.subscribe(CHANNEL)
                    await self._follow(subscription)
            except (RedisError, OSError) as fault:
                SHARING.set(0)
                log.warning("breakers_not_shared", fault=type(fault).__name__)
            await asyncio.sleep(RETRY_SECONDS)

    async def _publish(self, news: Sequence[News]) -> None:
        message = {"by": self._name, "news": [[each.deployment, each.event, each.at] for each in news]}
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                await self._redis.publish(CHANNEL, orjson.dumps(message))
        except (RedisError, OSError):
            # `hear` says so; what still holds is told again.
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, subscription: PubSub) -> None:
        """Take messages until none comes any more."""
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = None
                while message is None:
                    message = await subscription.get_message(timeout=SILENCE_SECONDS)
            SHARING.set(1)
            self._take(message["data"])

    def _take(self, message: bytes) -> None:
        try:
            told = orjson.loads(message)
            news = [News(str(name), Event(event), float(at)) for name, event, at in told["news"]]
        except (ValueError, TypeError, KeyError):
            log.warning("breaker_news_malformed", size_bytes=len(message))
            return
        for each in news if told.get("by") != self._name else ():
            self._bulletin.hear(each)


@asynccontextmanager
async def shared_breakers(url: str, bulletin: Bulletin) -> AsyncIterator[None]:
    """Share through the Redis at `url` for the block; it need not be there yet. Without a URL nothing is shared."""
    if not url:
        yield
        return
    pool = redis_pool(url, size=CONNECTIONS, timeout_seconds=REDIS_SECONDS)
    async with pool as connections, Redis.from_pool(connections) as redis:
        sharing = Sharing(redis, bulletin)
        async with in_background(sharing.tell(), sharing.hear()):
            yield
