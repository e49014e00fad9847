"""The beat of learning: draw conclusions, and share them with the other routers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from meshkit.errors import DependencyUnavailable
from services.router.learned.arm import Arm
from services.router.learned.learner import Learner
from services.router.redis_store import RedisStore

LINES_AT_ONCE = 1000


@asynccontextmanager
async def kept(learner: Learner, store: RedisStore | None, every_seconds: float) -> AsyncIterator[Keeping]:
    """Keep what `learner` learns while the block runs, and what it has learned at its end."""
    keeping = Keeping(learner, store)
    async with asyncio.TaskGroup() as group:
        group.create_task(keeping.run(every_seconds))
        try:
            yield keeping
        finally:
            keeping.over.set()


class Keeping:
    """Keeps what is learned in a store, if there is one; while it is away everything is learned all the same."""

    def __init__(self, learner: Learner, store: RedisStore | None) -> None:
        self._learner = learner
        self._bandit = learner.strategy.bandit
        self._store = store
        self.deployments: Sequence[str] = ()
        """Those whose evidence is read from the store."""
        self.over = asyncio.Event()

    async def run(self, every_seconds: float) -> None:
        """Beat until it is over, and a last time then. A beat ends by itself, at the deadlines of the store."""
        while not self.over.is_set():
            await self.beat()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), every_seconds)
        await self.beat()

    async def beat(self) -> None:
        """Once."""
        if self._store is not None:
            try:
                await self._write(self._store)
                await self._exchange(self._store)
            except DependencyUnavailable:
                pass  # logged where it was found; what could not be told waits
        self._bandit.fit()

    async def _write(self, store: RedisStore) -> None:
        waiting = self._learner.log
        lines = [waiting.popleft() for _ in range(min(len(waiting), LINES_AT_ONCE))]
        try:
            await store.write([line.line() for line in lines])
        except BaseException:
            waiting.extendleft(reversed(lines))
            raise

    async def _exchange(self, store: RedisStore) -> None:
        news = self._bandit.take_news()
        try:
            for name in list(news):
                if await store.add_arm(name, news[name], self._merged):
                    del news[name]
        finally:
            self._bandit.return_news(news, time.time())
        for name, arm in (await store.arms(self.deployments)).items():
            self._bandit.update(name, arm, time.time())

    def _merged(self, total: Arm, news: Arm) -> None:
        now, half_life = time.time(), self._bandit.learning.half_life_seconds
        for each in (total, news):
            each.fade(now, half_life)
        total.absorb(news)
