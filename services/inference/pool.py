"""Threads for work on the CPU that would hold up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from meshkit.errors import RateLimited

P = ParamSpec("P")
T = TypeVar("T")

RETRY_AFTER_SECONDS = 1.0


class Pool:
    """A few threads and a bounded number of callers."""

    def __init__(self, name: str, *, threads: int, max_callers: int) -> None:
        self._name = name
        self._max_callers = max_callers
        self._callers = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Be one of the callers for the block.

        Raises:
            RateLimited: If there are too many.
        """
        if self._callers >= self._max_callers:
            raise RateLimited(
                f"{self._name}: {self._max_callers} calls are under way; try again later",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        self._callers += 1
        try:
            yield
        finally:
            self._callers -= 1

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a thread. Cancelled before its turn it never runs; later it runs to its end unheard."""
        return await asyncio.wrap_future(self._threads.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Drop what has not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)
