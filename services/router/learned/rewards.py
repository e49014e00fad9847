"""What an answer was worth: success and quality are good, slowness and cost are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pydantic import Field

from services.router.deployment import Strict

MEASURES = ("success", "slowness", "cost")
"""What every outcome tells, each from 0 to 1. Quality is told by few, and kept apart."""

Measured: TypeAlias = tuple[float, float, float]
"""An outcome on the scale of MEASURES."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an answer went."""

    success: bool
    """It came to its end."""
    seconds: float
    """Time spent waiting for the provider, until it was done or had failed."""
    cost_micros: int = 0
    """What it cost, in micro-units of billing's base currency."""


class Worth(Strict):
    """How much each measure weighs in the reward; part of the routes file."""

    success: float = Field(default=1.0, ge=0, le=10)
    """Won by an answer that came to its end."""
    quality: float = Field(default=0.5, ge=0, le=10)
    """Won by the best feedback, half of it by neutral feedback."""
    slowness: float = Field(default=0.2, ge=0, le=10)
    """Lost by an answer that took `slow_seconds` or longer; a faster one loses its share."""
    cost: float = Field(default=0.4, ge=0, le=10)
    """Lost by an answer that cost what the dearest deployment was expected to; a cheaper one loses its share."""
    slow_seconds: float = Field(default=20.0, gt=0, le=3600)
    """What counts as slow."""

    def measured(self, outcome: Outcome, dearest_micros: float) -> Measured:
        """An outcome on the scale of MEASURES; `dearest_micros` is what it was expected to cost at most."""
        cost = outcome.cost_micros / dearest_micros if dearest_micros > 0 else 0.0
        return float(outcome.success), min(outcome.seconds / self.slow_seconds, 1.0), min(cost, 1.0)

    def reward(self, measured: Measured, quality: float) -> float:
        """What an answer of this quality, from 0 to 1, was worth; the best possible is worth 1."""
        success, slowness, cost = measured
        won = self.success * success + self.quality * quality - self.slowness * slowness - self.cost * cost
        return won / ((self.success + self.quality) or 1.0)


def quality_of(score: float) -> float:
    """Feedback from -1 to 1 on the scale of quality, from 0 to 1."""
    return (score + 1) / 2
