"""Weighs what the forest makes of a pair against what the cross-encoder makes of it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from importlib.resources import files

SURE = 0.01
"""No estimate of the forest counts as nearer to certainty than this."""


@dataclass(frozen=True, slots=True)
class Weighing:
    """A logistic regression over both, fitted to pairs that neither had seen."""

    scorer: str
    """The cross-encoder whose scores it weighs."""
    asked_from: float
    """Estimate of the forest from which the cross-encoder is asked; below, nothing it can say would be enough."""
    of_forest: float
    of_scorer: float
    bias: float
    alone_from: float
    """Estimate of the forest from which it would serve as often without the cross-encoder; for predictions alone."""

    @classmethod
    def packaged(cls) -> Weighing:
        """The weights made by `make train-cache-verifier`."""
        return cls(**json.loads((files(__package__) / "weights" / "weighing.json").read_text()))

    @property
    def written(self) -> str:
        """What `packaged` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def certainty(self, estimate: float, log_odds: float) -> float:
        """How sure both together are that two questions ask the same, from 0 to 1."""
        if estimate < self.asked_from:
            return 0.0
        return _probability(self.bias + self.of_forest * spread(estimate) + self.of_scorer * log_odds)


def spread(estimate: float) -> float:
    """An estimate of the forest on the scale of log-odds."""
    return math.log((estimate + SURE) / (1 + SURE - estimate))


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-max(min(log_odds, 50.0), -50.0)))
