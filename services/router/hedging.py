"""Asking a second deployment beside a silent one: whoever speaks first answers, the other is hung up on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar

import orjson

from llmmesh.chat.v1 import chat_pb2
from services.router.attempt import Attempt, caller_is_gone, observed
from services.router.deployment import Deployment
from services.router.measures import HEDGES
from services.router.providers.provider import FailureKind, ProviderFailure

Answer = TypeVar("Answer")

ACTING_OPTIONS = frozenset({"background", "previous_response_id", "store", "web_search_options"})
"""Options by which a provider keeps or does something: asking two would do it twice."""


def may_be_asked_twice(prompt: chat_pb2.ChatPrompt) -> bool:
    """Whether nothing but an answer comes of the request: the caller's tools are called by the caller."""
    options = prompt.options
    if any(options.extra_json[name] not in ("false", "null") for name in ACTING_OPTIONS & options.extra_json.keys()):
        return False
    return all(_is_the_callers(tool) for tool in options.tools_json)


def _is_the_callers(tool_json: str) -> bool:
    tool = orjson.loads(tool_json)
    return isinstance(tool, dict) and tool.get("type", "function") == "function"


class Race(Generic[Answer]):
    """One request put to a deployment, and to one more if that keeps silent for longer than `patience` says."""

    def __init__(
        self,
        attempts: Iterator[Attempt],
        ask: Callable[[Deployment], Awaitable[Answer]],
        patience: Callable[[Attempt], float | None],
        discard: Callable[[Answer], Awaitable[None]],
    ) -> None:
        self._attempts = attempts
        self._ask = ask
        self._patience = patience
        self._discard = discard
        self._running: dict[asyncio.Task[Answer], Attempt] = {}
        self._rival: Attempt | None = None
        self._alone = False
        """Nobody is left to ask."""
        self.failed: list[tuple[Attempt, ProviderFailure]] = []
        """Those that did not answer, or not first."""

    async def winner(self) -> tuple[Attempt, Answer] | None:
        """Whoever answers first, and what; None when nobody does, or nobody else is to be asked."""
        won = None
        try:
            while won is None and not self._is_futile() and (self._running or self._start()):
                won = await self._step()
        finally:
            try:
                await self._stop(lost=won is not None)
            except BaseException:
                if won is not None:
                    await self._let_go(*won)
                raise
        if self._rival:
            HEDGES.labels(self._rival.deployment.name, "won" if won and won[0] is self._rival else "lost").inc()
        return won

    async def _step(self) -> tuple[Attempt, Answer] | None:
        """Wait for one of those asked, or until patience ends and another is asked."""
        done, _ = await asyncio.wait(self._running, timeout=self._seconds_left(), return_when=asyncio.FIRST_COMPLETED)
        if not done:
            self._rival = self._start()
            return None
        task = done.pop()
        attempt = self._running.pop(task)
        try:
            return attempt, task.result()
        except ProviderFailure as failure:
            self.failed.append((attempt, failure))
            return None

    def _seconds_left(self) -> float | None:
        """How long to wait before another is asked; None for as long as it takes."""
        if self._rival or self._alone:
            return None
        (attempt,) = self._running.values()
        seconds = self._patience(attempt)
        return None if seconds is None else max(0.0, attempt.began + seconds - attempt.clock())

    def _start(self) -> Attempt | None:
        """Ask the next one; None when there is none."""
        attempt = next(self._attempts, None)
        if attempt is None:
            self._alone = True
            return None
        self._running[asyncio.create_task(observed(attempt, self._ask))] = attempt
        return attempt

    def _is_futile(self) -> bool:
        """Whether nobody else is to be asked: the request is at fault, or its caller waits no longer."""
        refused = any(failure.kind is FailureKind.REFUSED for _, failure in self.failed)
        return refused or (bool(self.failed) and caller_is_gone())

    async def _stop(self, *, lost: bool) -> None:
        """Hang up on whoever is still asked; nothing stays open."""
        for task in self._running:
            task.cancel()
        answers = await asyncio.gather(*self._running, return_exceptions=True)
        for attempt, answer in zip(self._running.values(), answers, strict=True):
            if not isinstance(answer, BaseException):
                await self._let_go(attempt, answer)
        for attempt in self._running.values() if lost else ():
            kind = FailureKind.UNASKED if attempt.dispatch.held else FailureKind.OUTPACED
            self.failed.append((attempt, ProviderFailure(kind, "another answered first")))

    async def _let_go(self, attempt: Attempt, answer: Answer) -> None:
        """Close an answer that nobody wants, and end its attempt."""
        try:
            await self._discard(answer)
        finally:
            if not attempt.over:
                attempt.cancelled()
