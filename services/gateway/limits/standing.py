"""How a request stands against its limits, and how its caller is told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from meshkit.errors import RateLimited
from services.gateway.limits.scope import Scope

MINUTE_MS, MINUTE_STEP_MS = 60_000, 5_000
DAY_MS, DAY_STEP_MS = 86_400_000, 3_600_000
NEVER = -1
"""Wait of a request that is larger than its limit."""
STREAM_RETRY_MS = 1000


@dataclass(frozen=True, slots=True)
class Use:
    """What of one scope's limits was used before a request, and how long until there is room for it."""

    requests: int
    requests_wait_ms: int
    tokens: int
    tokens_wait_ms: int
    day_tokens: int
    day_tokens_wait_ms: int
    streams: int


@dataclass(frozen=True, slots=True)
class Standing:
    """The answer to one request: granted in all its scopes, or counted in none."""

    granted: bool
    time_ms: int
    """Of the clock that counts."""
    uses: Sequence[Use]


@dataclass(frozen=True, slots=True)
class _Row:
    """One limit and what is used of it."""

    scope: Scope
    kind: str
    unit: str
    limit: int
    used: int
    asked: int
    wait_ms: int
    whole_ms: int
    """Until nothing of it is used any longer, if nobody asks."""

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)


def limit_headers(scopes: Sequence[Scope], standing: Standing, tokens: int) -> list[tuple[str, str]]:
    """OpenAI's headers: of requests and of tokens the limit with the least left."""
    rows = list(_rows(scopes, standing, tokens))
    headers = []
    for kind in ("requests", "tokens"):
        tightest = min((row for row in rows if row.kind == kind), key=lambda row: row.left, default=None)
        if tightest:
            left = max(0, tightest.left - tightest.asked) if standing.granted else tightest.left
            headers += [
                (f"x-ratelimit-limit-{kind}", str(tightest.limit)),
                (f"x-ratelimit-remaining-{kind}", str(left)),
                (f"x-ratelimit-reset-{kind}", _duration(tightest.whole_ms)),
            ]
    return headers


def refusal(scopes: Sequence[Scope], standing: Standing, tokens: int) -> RateLimited:
    """The error of a request that was not granted: the limit that it must wait for longest."""
    broken = [row for row in _rows(scopes, standing, tokens) if row.wait_ms]
    full = [row for row in broken if row.wait_ms == NEVER]
    row = full[0] if full else max(broken, key=lambda row: row.wait_ms)
    words = f"Rate limit reached for {row.scope.level} {row.scope.name!r} on {row.unit}"
    retry = None if full else row.wait_ms / 1000
    advice = (
        "The request alone is larger than the limit: shorten it or lower its max_tokens."
        if retry is None
        else f"Please try again in {_duration(row.wait_ms)}."
    )
    return RateLimited(
        f"{words}: Limit {row.limit}, Used {row.used}, Requested {row.asked}. {advice}",
        retry_after_seconds=retry,
        headers=limit_headers(scopes, standing, tokens),
        level=row.scope.level,
        limit=row.kind,
    )


def _rows(scopes: Sequence[Scope], standing: Standing, tokens: int) -> Iterator[_Row]:
    minute = _until_whole(standing.time_ms, MINUTE_MS, MINUTE_STEP_MS)
    day = _until_whole(standing.time_ms, DAY_MS, DAY_STEP_MS)
    for scope, use in zip(scopes, standing.uses, strict=True):
        rpm, tpm = scope.limits.requests_per_minute, scope.limits.tokens_per_minute
        tpd, most = scope.limits.tokens_per_day, scope.limits.concurrent_streams
        rows = (
            _Row(scope, "requests", "requests per min (RPM)", rpm, use.requests, 1, use.requests_wait_ms, minute),
            _Row(scope, "tokens", "tokens per min (TPM)", tpm, use.tokens, tokens, use.tokens_wait_ms, minute),
            _Row(scope, "tokens", "tokens per day (TPD)", tpd, use.day_tokens, tokens, use.day_tokens_wait_ms, day),
            _Row(scope, "streams", "concurrent streams", most, use.streams, 1, _stream_wait_ms(use, most), 0),
        )
        yield from (row for row in rows if row.limit)


def _stream_wait_ms(use: Use, most: int) -> int:
    """When an answer under way will end nobody knows: soon, perhaps."""
    return STREAM_RETRY_MS if use.streams >= most else 0


def _until_whole(now_ms: int, window_ms: int, step_ms: int) -> int:
    """Until what is counted now leaves its window."""
    return (now_ms // step_ms + 1) * step_ms + window_ms - now_ms


def _duration(milliseconds: int) -> str:
    """As OpenAI writes it: "1s", "6m0s", "23h59m1s"."""
    minutes, seconds = divmod(math.ceil(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
