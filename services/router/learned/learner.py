"""Takes in how answers of the strategy `learned` went, and what people said of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from services.router.feedback import Answer
from services.router.learned.context import Context, names
from services.router.learned.decisions import Decision, Rated
from services.router.learned.rewards import Measured, Outcome, quality_of
from services.router.learned.strategy import Learned, Stake
from services.router.observing import Chat
from services.router.providers.provider import FailureKind

MOST_WAITING = 10_000
"""Log lines kept while nobody takes them; the oldest go first."""


@dataclass(slots=True)
class Learner:
    """Teaches the bandit of a strategy. Does no I/O: what is to be kept waits in `log`."""

    strategy: Learned
    clock: Callable[[], float] = time.time
    log: deque[Decision | Rated] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))

    def context(self, chat: Chat) -> Context | None:
        """By which a deployment was picked; None when it was not picked by this strategy."""
        stake = self.strategy.stakes.get(chat.demand)
        return None if stake is None else stake.context

    def note(self, chat: Chat) -> None:
        """Learn from a chat that is over: from who answered, and from those who failed before.

        One whose caller left shows nothing.
        """
        stake = self.strategy.stakes.get(chat.demand)
        if stake is None or chat.left:
            return
        for name, measured in self._measured(chat, stake):
            self.strategy.bandit.learn(name, stake.context, measured, self.clock())
            if name == stake.gamble.first:
                self.log.append(self._decision(chat, stake, measured))

    def rate(self, answer: Answer, score: float, before: float | None) -> None:
        """Learn from feedback, or from a changed mind."""
        if answer.context is None:
            return
        quality, bandit, now = quality_of(score), self.strategy.bandit, self.clock()
        if before is None:
            bandit.rate(answer.deployment, answer.context, quality, now)
        else:
            bandit.rerate(answer.deployment, answer.context, quality - quality_of(before), now)
        self.log.append(Rated(now, answer.request_id, quality))

    def _measured(self, chat: Chat, stake: Stake) -> Iterator[tuple[str, Measured]]:
        worth = self.strategy.bandit.learning.worth
        for attempt in chat.failed:
            if not attempt.failure.kind.is_of_the_request:
                slow = attempt.failure.kind is FailureKind.TIMEOUT
                yield attempt.deployment.name, worth.measured(Outcome(False, worth.slow_seconds * slow), 0)
        if chat.deployment is not None:
            outcome = Outcome(chat.finished, chat.seconds, chat.cost_micros)
            yield chat.deployment.name, worth.measured(outcome, stake.dearest_micros)

    def _decision(self, chat: Chat, stake: Stake, measured: Measured) -> Decision:
        return Decision(
            self.clock(),
            chat.asker.request_id,
            chat.demand.model,
            names(stake.context),
            stake.gamble.first,
            stake.gamble.chances,
            measured,
        )
