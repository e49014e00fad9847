"""How a deployment has been answering lately, as the router saw it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

KEPT_CALLS = 256
"""Calls remembered of each deployment, some 40 KB."""
KEPT_SECONDS = 600.0
SHORTEST_SPEECH_SECONDS = 0.05
"""An answer that came in one piece tells nothing about the speed of its tokens."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How one call ended, without its words."""

    at: float
    failed: bool = False
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """Calls since the start, and what the last of them were like: at most KEPT_CALLS, in KEPT_SECONDS."""

    requests: int
    recent: int
    error_rate: float
    """0 to 1; 0 without recent calls."""
    first_token_p50_seconds: float | None
    first_token_p95_seconds: float | None
    tokens_per_second: float | None
    """The median; each None when no recent call tells."""


@dataclass(slots=True)
class Vitals:
    """Remembers the last calls of one deployment. Times are seconds of any one clock."""

    requests: int = 0
    _told_at: float = float("-inf")
    """When a call last told how it is: one that was cancelled before its first token told nothing."""
    _endings: deque[Ending] = field(default_factory=lambda: deque(maxlen=KEPT_CALLS))

    def note(self, ending: Ending) -> None:
        """Remember a call that ended."""
        self.requests += 1
        self._endings.append(ending)
        if ending.failed or ending.first_token_seconds is not None:
            self._told_at = ending.at

    def idle_seconds(self, now: float) -> float:
        """How long since a call told something; infinite before the first."""
        return now - self._told_at

    def figures(self, now: float) -> Figures:
        """What the remembered calls were like."""
        recent = list(self._recent(now))
        first_tokens = sorted(each.first_token_seconds for each in recent if each.first_token_seconds is not None)
        speeds = sorted(each.tokens_per_second for each in recent if each.tokens_per_second is not None)
        return Figures(
            requests=self.requests,
            recent=len(recent),
            error_rate=sum(each.failed for each in recent) / max(1, len(recent)),
            first_token_p50_seconds=quantile(first_tokens, 0.5),
            first_token_p95_seconds=quantile(first_tokens, 0.95),
            tokens_per_second=quantile(speeds, 0.5),
        )

    def _recent(self, now: float) -> Iterator[Ending]:
        return (each for each in self._endings if now - each.at <= KEPT_SECONDS)


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value that `share` of the ordered ones do not exceed; None of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
