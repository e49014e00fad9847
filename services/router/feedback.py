"""What people say of answers: which deployment gave which, and who wants to know."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from meshkit.errors import ResourceNotFound
from services.router.learned.context import Context
from services.router.observing import Chat, Observer

KEPT_ANSWERS = 10_000
"""Remembered in memory, some 5 MB; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that may be judged. Holds no word of it."""

    tenant_id: str
    request_id: str
    deployment: str
    context: Context | None = None
    """By which it was picked, where that was learned."""
    trial: tuple[str, int] | None = None
    """The variant it was of, and the group of its unit, where it counts in an experiment."""


Listener = Callable[[Answer, float, float | None], None]
"""Told an answer, its score, and the score it had before."""


class Answers(Protocol):
    """Where answers and their scores are kept for all routers, or in this one alone."""

    def remember(self, answer: Answer) -> None:
        """Keep an answer for a while."""
        ...

    async def find(self, tenant_id: str, request_id: str) -> Answer | None:
        """The answer a tenant got; None when it is not known, or no longer."""
        ...

    async def put(self, answer: Answer, score: float) -> float | None:
        """Set the score of an answer, at once for everybody; returns the one it had."""
        ...


class OwnAnswers:
    """Kept in memory."""

    def __init__(self, most: int = KEPT_ANSWERS) -> None:
        self._most = most
        self._answers: OrderedDict[tuple[str, str], tuple[Answer, float | None]] = OrderedDict()

    def remember(self, answer: Answer) -> None:
        """Keep an answer until many others came."""
        self._answers[answer.tenant_id, answer.request_id] = answer, None
        while len(self._answers) > self._most:
            self._answers.popitem(last=False)

    async def find(self, tenant_id: str, request_id: str) -> Answer | None:
        """The answer a tenant got."""
        answer, _ = self._answers.get((tenant_id, request_id), (None, None))
        return answer

    async def put(self, answer: Answer, score: float) -> float | None:
        """Set the score of an answer; returns the one it had."""
        key = answer.tenant_id, answer.request_id
        _, before = self._answers.get(key, (answer, None))
        self._answers[key] = answer, score
        return before


def remembering(answers: Answers, context: Callable[[Chat], Context | None]) -> Observer:
    """Remembers the answers that may teach something."""

    def note(chat: Chat) -> None:
        picked_by, trial, asker = context(chat), _trial(chat), chat.asker
        if chat.deployment is None or chat.left or not asker.request_id or (picked_by is None and trial is None):
            return
        answers.remember(Answer(asker.tenant_id, asker.request_id, chat.deployment.name, picked_by, trial))

    return note


def _trial(chat: Chat) -> tuple[str, int] | None:
    treatment = chat.demand.treatment
    return None if treatment is None or treatment.group is None else (treatment.version, treatment.group)


@dataclass(frozen=True, slots=True)
class Feedback:
    """Takes scores from -1 to 1 and tells them on."""

    answers: Answers
    listeners: Sequence[Listener]

    async def rate(self, tenant_id: str, request_id: str, score: float) -> None:
        """Judge an answer; the last judgement counts, and the same one twice counts once.

        Raises:
            ResourceNotFound: If this tenant got no such answer lately from a provider.
            DependencyUnavailable: If it cannot be known right now.
        """
        answer = await self.answers.find(tenant_id, request_id)
        if answer is None:
            raise ResourceNotFound(
                f"No answer {request_id!r} is known that could be judged: send the x-request-id of an answer of the "
                "last day. Answers from the cache, and those that nothing is learned from, cannot be judged.",
                request_id=request_id,
            )
        before = await self.answers.put(answer, score)
        if before == score:
            return
        for tell in self.listeners:
            tell(answer, score, before)
