"""What was decided, and what came of it: one line of the log for each choice made by chance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from services.router.learned.bandit import NEUTRAL_QUALITY
from services.router.learned.context import indices
from services.router.learned.estimation import Logged
from services.router.learned.rewards import Measured, Worth


@dataclass(frozen=True, slots=True)
class Decision:
    """A choice and its outcome. Holds no word of the prompt, and no name of a caller."""

    at: float
    request_id: str
    model: str
    context: list[str]
    first: str
    chances: Mapping[str, float]
    """The probability each candidate had to be asked first."""
    measured: Measured
    """What `first` did; the order is that of MEASURES."""

    def line(self) -> bytes:
        """JSON on one line."""
        return orjson.dumps({"decision": asdict(self)})


@dataclass(frozen=True, slots=True)
class Rated:
    """Feedback on the answer of a decision; a later one replaces it."""

    at: float
    request_id: str
    quality: float

    def line(self) -> bytes:
        """JSON on one line."""
        return orjson.dumps({"rated": asdict(self)})


def replayed(lines: Iterable[bytes], worth: Worth) -> list[Logged]:
    """The choices of a log with their rewards, in order; answers nobody rated count as of neutral quality."""
    decisions: dict[str, dict[str, Any]] = {}
    qualities: dict[str, float] = {}
    for entry in map(orjson.loads, lines):
        if decided := entry.get("decision"):
            decisions[decided["request_id"]] = decided
        elif rated := entry.get("rated"):
            qualities[rated["request_id"]] = rated["quality"]
    return list(_logged(decisions, qualities, worth))


def _logged(
    decisions: Mapping[str, Mapping[str, Any]], qualities: Mapping[str, float], worth: Worth
) -> Iterator[Logged]:
    for request_id, each in decisions.items():
        success, slowness, cost = each["measured"]
        reward = worth.reward((success, slowness, cost), qualities.get(request_id, NEUTRAL_QUALITY))
        chances = each["chances"]
        yield Logged(indices(each["context"]), list(chances), each["first"], chances[each["first"]], reward)
