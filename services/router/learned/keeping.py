"""What is done at every beat of learning: conclusions are drawn, and shared with the other routers."""

from __future__ import annotations

import time
from collections.abc import Sequence

from meshkit.errors import DependencyUnavailable
from services.router.learned.arm import SHAPE, Arm
from services.router.learned.learner import Learner
from services.router.redis_store import RedisStore

LINES_AT_ONCE = 1000


class Keeping:
    """Keeps what is learned in a store, if there is one; while it is away everything is learned all the same."""

    def __init__(self, learner: Learner, store: RedisStore | None) -> None:
        self._learner = learner
        self._bandit = learner.strategy.bandit
        self._store = store
        self.deployments: Sequence[str] = ()
        """Those whose evidence is read from the store."""

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
                if await store.add(_key(name), news[name], self._merged):
                    del news[name]
        finally:
            self._bandit.return_news(news, time.time())
        stored = await store.sums([_key(name) for name in self.deployments], Arm)
        for name, arm in zip(self.deployments, stored, strict=True):
            if arm is not None:
                self._bandit.update(name, arm, time.time())

    def _merged(self, total: Arm, news: Arm) -> None:
        now, half_life = time.time(), self._bandit.learning.half_life_seconds
        for each in (total, news):
            each.fade(now, half_life)
        total.absorb(news)


def _key(name: str) -> str:
    return f"learned:{SHAPE}:{name}"
