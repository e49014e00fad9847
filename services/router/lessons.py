"""What is learned from chats: opened together, because all of it is kept in the same place."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.router.beating import beating
from services.router.config import RouterConfig
from services.router.experiments.shadows import shadowed
from services.router.experiments.tallying import Tallying
from services.router.experiments.trials import versions
from services.router.feedback import Feedback, OwnAnswers, remembering
from services.router.learned.bandit import Bandit, Learning
from services.router.learned.keeping import Keeping
from services.router.learned.learner import Learner
from services.router.learned.strategy import Learned
from services.router.observing import Observer
from services.router.redis_store import RedisStore, redis_store
from services.router.routes import Routes


@dataclass(frozen=True, slots=True)
class Lessons:
    """The strategy `learned`, and what teaches it."""

    strategy: Learned
    keeping: Keeping
    tallying: Tallying
    observers: Sequence[Observer]
    feedback: Feedback

    def follow(self, routes: Routes) -> None:
        """Learn from now on of the deployments and the experiments of these routes, as they say."""
        self.keeping.deployments = [each.name for each in routes.deployments]
        self.strategy.bandit.adopt(routes.learning)
        running = [versions(each, routes.prompts) for each in routes.experiments]
        copied = [each.versions for each in shadowed(routes.deployments)]
        self.tallying.versions = [version.name for all_ in (*running, *copied) for version in all_]


@asynccontextmanager
async def lessons(config: RouterConfig) -> AsyncIterator[Lessons]:
    """Learn while the block runs; what was learned is kept at its end."""
    learner = Learner(Learned(Bandit(Learning(), random.Random())))  # noqa: S311 - chance, not secrecy
    async with _store(config) as store:
        keeping, tallying = Keeping(learner, store), Tallying(store)
        async with beating(config.learning_beat_seconds, keeping.beat, tallying.beat):
            answers = OwnAnswers() if store is None else store
            observers = [learner.note, tallying.note, remembering(answers, learner.context)]
            feedback = Feedback(answers, [learner.rate, tallying.rate])
            yield Lessons(learner.strategy, keeping, tallying, observers, feedback)


@asynccontextmanager
async def _store(config: RouterConfig) -> AsyncIterator[RedisStore | None]:
    if not config.redis_url:
        yield None
        return
    async with redis_store(
        config.redis_url, timeout_seconds=config.redis_timeout_seconds, decisions_kept=config.decisions_kept
    ) as store:
        yield store
