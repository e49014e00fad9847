"""What routers keep together in Redis: answers and their scores, what was learned and counted, the decision log.

Nothing of it is on the path of a chat: it is written in the background, from bounded buffers.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar, cast

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError

from meshkit.errors import DependencyUnavailable
from meshkit.log import get_logger
from services.router.feedback import KEPT_ANSWERS, Answer

PREFIX = "llmmesh:router"
DECISIONS = f"{PREFIX}:decisions"
ANSWER_SECONDS = 86_400
"""How long an answer can be judged."""
GATHERED_SECONDS = 180 * 86_400
"""After this time without an outcome, what was gathered of a deployment or a variant is forgotten."""

log = get_logger()


class Addend(Protocol):
    """Something gathered bit by bit in many places."""

    def encoded(self) -> bytes:
        """As bytes, for a store."""
        ...

    @classmethod
    def decoded(cls, stored: bytes) -> Self:
        """Read what `encoded` wrote."""
        ...


Sum = TypeVar("Sum", bound=Addend)


@dataclass(slots=True)
class RedisStore:
    """Every operation ends at its deadline, a frozen Redis included."""

    redis: Redis
    timeout_seconds: float
    decisions_kept: int
    unwritten: OrderedDict[tuple[str, str], Answer] = field(default_factory=OrderedDict)

    def remember(self, answer: Answer) -> None:
        """Keep an answer: here at once, for all routers from the next `write`."""
        self.unwritten[answer.tenant_id, answer.request_id] = answer
        while len(self.unwritten) > KEPT_ANSWERS:
            self.unwritten.popitem(last=False)

    async def find(self, tenant_id: str, request_id: str) -> Answer | None:
        """The answer a tenant got; raises DependencyUnavailable while that cannot be known."""
        here = self.unwritten.get((tenant_id, request_id))
        if here is not None:
            return here
        stored = await self._asked(lambda: self.redis.get(_answer_key(tenant_id, request_id)))
        return None if stored is None else _answer(tenant_id, request_id, stored)

    async def put(self, answer: Answer, score: float) -> float | None:
        """Set the score of an answer; two at once see each other's. Raises DependencyUnavailable."""
        key = f"{_answer_key(answer.tenant_id, answer.request_id)}:score"
        before = await self._asked(lambda: self.redis.set(key, repr(score), ex=ANSWER_SECONDS, get=True))
        return None if before is None else float(before)

    async def write(self, lines: Sequence[bytes]) -> None:
        """Write the answers that wait, and append lines to the decision log. Raises DependencyUnavailable."""
        answers = list(self.unwritten.items())
        async with self.redis.pipeline(transaction=False) as pipe:
            for key, answer in answers:
                pipe.set(_answer_key(*key), _answer_bytes(answer), ex=ANSWER_SECONDS)
            for line in lines:
                pipe.xadd(DECISIONS, {"line": line}, maxlen=self.decisions_kept, approximate=True)
            if answers or lines:
                await self._asked(pipe.execute)
        for key, answer in answers:
            if self.unwritten.get(key) is answer:
                del self.unwritten[key]

    async def lines(self) -> list[bytes]:
        """The decision log, oldest first. Raises DependencyUnavailable."""
        entries = await self._asked(lambda: self.redis.xrange(DECISIONS))
        return [fields[b"line"] for _, fields in entries]

    async def add(self, key: str, news: Sum, merged: Callable[[Sum, Sum], None]) -> bool:
        """Add what this router gathered to what all have; `merged` adds the second to the first.

        False if another router was faster: then nothing was added. Raises DependencyUnavailable.
        """
        added: bool = await self._asked(lambda: self._added(f"{PREFIX}:{key}", news, merged))
        return added

    async def sums(self, keys: Sequence[str], kind: type[Sum]) -> list[Sum | None]:
        """What all routers have gathered, in the order of the keys. Raises DependencyUnavailable."""
        if not keys:
            return []
        stored = await self._asked(lambda: self.redis.mget([f"{PREFIX}:{key}" for key in keys]))
        return [None if each is None else kind.decoded(each) for each in stored]

    async def _added(self, key: str, news: Sum, merged: Callable[[Sum, Sum], None]) -> bool:
        pipe, kind = cast("Any", self.redis.pipeline()), type(news)
        async with pipe:
            await pipe.watch(key)
            stored = await pipe.get(key)
            total = kind() if stored is None else kind.decoded(stored)
            merged(total, news)
            pipe.multi()
            pipe.set(key, total.encoded(), ex=GATHERED_SECONDS)
            try:
                await pipe.execute()
            except WatchError:
                return False
        return True

    async def _asked(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What Redis says, which this file alone knows the types of."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                return await ask()
        except (RedisError, OSError, TimeoutError) as fault:
            log.warning("redis_unavailable", fault=type(fault).__name__)
            raise DependencyUnavailable("Feedback cannot be taken right now: retry.", retry_after_seconds=2) from None


@asynccontextmanager
async def redis_store(url: str, *, timeout_seconds: float, decisions_kept: int) -> AsyncIterator[RedisStore]:
    """A store at `url`; it connects when it is first used."""
    # Not the shared pool: it connects without a word, so what is asked of a frozen Redis would be done when it thaws,
    # long after the caller was told that it was not.
    client = Redis.from_url(url, retry=Retry(NoBackoff(), 0), max_connections=16)
    async with client:
        yield RedisStore(client, timeout_seconds, decisions_kept)


def _answer_key(tenant_id: str, request_id: str) -> str:
    return f"{PREFIX}:answer:{len(tenant_id)}:{tenant_id}:{request_id}"


def _answer_bytes(answer: Answer) -> bytes:
    return orjson.dumps([answer.deployment, answer.context, answer.trial])


def _answer(tenant_id: str, request_id: str, stored: bytes) -> Answer:
    deployment, context, *more = orjson.loads(stored)
    trial = next(iter(more), None)
    return Answer(tenant_id, request_id, deployment, context and tuple(context), trial and tuple(trial))
