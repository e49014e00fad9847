"""The same asked twice at the same moment is done once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
MOST_KEPT = 1000


class Coalescing(Generic[Result]):
    """Work under way, by key.

    Who asks for what is under way already joins it; a result is kept for as many seconds, counted from when it was
    asked for, as `kept_seconds` says of it. A caller who is cancelled leaves the work to the others, so work must end
    by a deadline of its own.
    """

    def __init__(self, kept_seconds: Callable[[Result], float] = lambda _: 0.0) -> None:
        self._kept_seconds = kept_seconds
        self._tasks: dict[Hashable, asyncio.Task[Result]] = {}
        self._waiting: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        """How much is under way or kept."""
        return len(self._tasks)

    async def join(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """The result of the work for `key`, begun now if there is none."""
        task = self._tasks.get(key)
        if task is None:
            loop = asyncio.get_running_loop()
            task, asked = loop.create_task(work()), loop.time()
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._keep(key, done, asked))
        return task.result() if task.done() else await self._shared(key, task)

    def awaited(self, key: Hashable) -> bool:
        """Whether anybody who asked for `key` still waits for it."""
        return key in self._waiting

    async def _shared(self, key: Hashable, task: asyncio.Task[Result]) -> Result:
        self._waiting[key] += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

    def _keep(self, key: Hashable, done: asyncio.Task[Result], asked: float) -> None:
        failed = done.cancelled() or done.exception() is not None
        seconds = 0.0 if failed else self._kept_seconds(done.result())
        if seconds and len(self._tasks) <= MOST_KEPT:
            asyncio.get_running_loop().call_at(asked + seconds, self._tasks.pop, key)
        else:
            del self._tasks[key]
