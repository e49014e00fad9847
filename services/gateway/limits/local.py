"""Counts of this process alone: what it goes by while Redis is away."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.gateway.limits.scope import Limits, Scope
from services.gateway.limits.standing import DAY_MS, DAY_STEP_MS, MINUTE_MS, MINUTE_STEP_MS, NEVER, Standing, Use

MOST_SCOPES = 20_000
"""Those that were quiet for longest are forgotten first."""


class Window:
    """How much was counted lately, by steps; a step counts until its last moment has left the window."""

    def __init__(self, length_ms: int, step_ms: int) -> None:
        self._length_ms = length_ms
        self._step_ms = step_ms
        self._steps: OrderedDict[int, int] = OrderedDict()

    def used(self, now_ms: int) -> int:
        """What counts now."""
        while self._steps and self._leaves(first := next(iter(self._steps))) <= now_ms:
            del self._steps[first]
        return sum(self._steps.values())

    def wait_ms(self, now_ms: int, amount: int, limit: int) -> int:
        """Until there is room for `amount`: 0 for at once, NEVER for what is larger than the limit."""
        left = self.used(now_ms)
        if not limit or left + amount <= limit:
            return 0
        for step, count in self._steps.items():
            left -= count
            if left + amount <= limit:
                return self._leaves(step) - now_ms
        return NEVER

    def add(self, now_ms: int, amount: int) -> None:
        """Count `amount`."""
        step = now_ms // self._step_ms
        self._steps[step] = self._steps.get(step, 0) + amount

    def take_back(self, then_ms: int, amount: int) -> None:
        """Count less of what was counted at a time, if that still counts."""
        step = then_ms // self._step_ms
        if step in self._steps:
            self._steps[step] -= amount

    def _leaves(self, step: int) -> int:
        return (step + 1) * self._step_ms + self._length_ms


@dataclass(slots=True)
class _Counts:
    requests: Window = field(default_factory=lambda: Window(MINUTE_MS, MINUTE_STEP_MS))
    tokens: Window = field(default_factory=lambda: Window(MINUTE_MS, MINUTE_STEP_MS))
    day_tokens: Window = field(default_factory=lambda: Window(DAY_MS, DAY_STEP_MS))
    leases: set[str] = field(default_factory=set)

    def use(self, now_ms: int, tokens: int, limits: Limits) -> Use:
        return Use(
            self.requests.used(now_ms),
            self.requests.wait_ms(now_ms, 1, limits.requests_per_minute),
            self.tokens.used(now_ms),
            self.tokens.wait_ms(now_ms, tokens, limits.tokens_per_minute),
            self.day_tokens.used(now_ms),
            self.day_tokens.wait_ms(now_ms, tokens, limits.tokens_per_day),
            len(self.leases),
        )


class LocalCounts:
    """Counts in memory, with the same answers as those in Redis."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counts: OrderedDict[tuple[str, str, str], _Counts] = OrderedDict()

    def take(self, scopes: Sequence[Scope], tokens: int, lease: str) -> Standing:
        """Count a request in every scope, or in none."""
        now_ms = int(self._clock() * 1000)
        counts = [self._of(scope) for scope in scopes]
        uses = [each.use(now_ms, tokens, scope.limits) for each, scope in zip(counts, scopes, strict=True)]
        granted = all(_has_room(use, scope.limits) for use, scope in zip(uses, scopes, strict=True))
        if granted:
            for each in counts:
                each.requests.add(now_ms, 1)
                each.tokens.add(now_ms, tokens)
                each.day_tokens.add(now_ms, tokens)
                each.leases.add(lease)
        return Standing(granted, now_ms, uses)

    def give(self, scopes: Sequence[Scope], lease: str, taken_ms: int, foreseen: int, used: int) -> None:
        """End a request that was counted at `taken_ms`."""
        now_ms = int(self._clock() * 1000)
        for counts in map(self._of, scopes):
            counts.leases.discard(lease)
            for window in (counts.tokens, counts.day_tokens):
                if used > foreseen:
                    window.add(now_ms, used - foreseen)
                else:
                    window.take_back(taken_ms, foreseen - used)

    def _of(self, scope: Scope) -> _Counts:
        name = (scope.tenant_id, scope.level, scope.name)
        counts = self._counts.setdefault(name, _Counts())
        self._counts.move_to_end(name)
        while len(self._counts) > MOST_SCOPES:
            self._counts.popitem(last=False)
        return counts


def _has_room(use: Use, limits: Limits) -> bool:
    waits = use.requests_wait_ms or use.tokens_wait_ms or use.day_tokens_wait_ms
    return not waits and not (limits.concurrent_streams and use.streams >= limits.concurrent_streams)
