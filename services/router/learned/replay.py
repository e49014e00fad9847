"""What each deployment alone would have earned, by the decision log: `python -m services.router.learned.replay URL`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence

from services.router.learned.decisions import replayed
from services.router.learned.estimation import Estimate, Logged, doubly_robust, fitted, inverse_propensity
from services.router.learned.rewards import Worth
from services.router.redis_store import redis_store

READ_SECONDS = 60.0


def report(log: Sequence[Logged]) -> Iterator[str]:
    """A line for each deployment."""
    if len(log) < 2:
        yield "The log holds fewer than two choices."
        return
    yield f"{len(log)} choices earned {sum(each.reward for each in log) / len(log):.3f} each; alone would have earned:"
    model = fitted(log)
    for name in sorted({name for each in log for name in each.candidates}):
        # Only where it was a candidate can it be said to have been chosen or not.
        asked = [each for each in log if name in each.candidates]
        if len(asked) > 1:
            weighted = inverse_propensity(asked, lambda _, name=name: name)  # type: ignore[misc]
            robust = doubly_robust(asked, lambda _, name=name: name, model)  # type: ignore[misc]
            yield f"{name}: {_interval(robust)} doubly robust, {_interval(weighted)} by inverse propensity"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} ({estimate.low:.3f}..{estimate.high:.3f})"


async def main(url: str) -> None:
    """Read the log and print."""
    async with redis_store(url, timeout_seconds=READ_SECONDS, decisions_kept=0) as store:
        print("\n".join(report(replayed(await store.lines(), Worth()))))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
