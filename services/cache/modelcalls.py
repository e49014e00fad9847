"""Calls of a model that an answer waits for: so many at once, each within its time, none while the model is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from grpc.aio import AioRpcError

from meshkit.deadline import time_left
from meshkit.dependency import Dependency, Unavailable

Made = TypeVar("Made")


class ModelCalls:
    """What the inference service is asked for one purpose; `name` says in errors and logs for which."""

    def __init__(self, name: str, *, timeout_seconds: float, at_once: int) -> None:
        self.dependency = Dependency(name, faults=(AioRpcError,))
        """For calls that no answer waits for."""
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._at_once = at_once
        self._under_way = 0

    async def ask(self, call: Callable[[float], Awaitable[Made]]) -> Made:
        """Make a call, which is told the usual seconds, and wait for it no longer than the request has left.

        Raises:
            Unavailable: If the model is away, warming or late, or too many calls are under way.
        """
        if self._under_way >= self._at_once:
            raise Unavailable(f"too many {self._name} are under way")
        self._under_way += 1
        try:
            return await self._in_time(call)
        finally:
            self._under_way -= 1

    async def _in_time(self, call: Callable[[float], Awaitable[Made]]) -> Made:
        """Its answer; a request that cannot wait for it tells nothing of the model, which others may ask on."""
        usual, seconds = self._timeout_seconds, time_left(self._timeout_seconds)
        try:
            async with asyncio.timeout(seconds if seconds < usual else None):
                return await self.dependency.ask(lambda: call(usual), timeout_seconds=usual)
        except TimeoutError as error:
            raise Unavailable(f"the request did not wait for its {self._name}") from error
