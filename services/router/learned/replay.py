"""What each deployment alone would have earned, by the decision log.

`python -m services.router.learned.replay REDIS_URL [ROUTES_FILE]`: rewards are weighed as that file has it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.router.learned.decisions import replayed
from services.router.learned.estimation import Estimate, Logged, doubly_robust, fitted, inverse_propensity
from services.router.learned.rewards import Worth
from services.router.redis_store import redis_store
from services.router.routes import load_routes

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


async def main(url: str, routes: str = "") -> None:
    """Read the log and print; without a routes file by the weights that stand where one says nothing.

    Raises:
        RoutesInvalid: If the routes file cannot be used.
    """
    worth = load_routes(Path(routes), os.environ).learning.worth if routes else Worth()
    weights = worth.model_dump(exclude={"slow_seconds"})
    async with redis_store(url, timeout_seconds=READ_SECONDS, decisions_kept=0) as store:
        log = replayed(await store.lines(), worth)
    print("Weights:", ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))
    print("\n".join(report(log)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
