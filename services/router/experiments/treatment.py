"""What an experiment makes of one request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Use(StrEnum):
    """What became of the variant a request was assigned to."""

    APPLIED = "applied"
    BARRED = "barred"
    """Constraints or needs forbid it, as they will whenever the same is asked."""
    REPLACED = "replaced"
    """Its deployments failed."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """The variant a request was assigned to, and how it is carried out."""

    version: str
    """Names the variant and its definition."""
    use: Use
    deployments: frozenset[str]
    """Those asked before all others; empty for any."""
    group: int | None
    """Of the unit the request comes from; None when the request is not counted, being no fair comparison."""

    def use_of(self, deployment: str) -> Use:
        """What became of the variant, now that `deployment` answers."""
        stays = self.use is Use.BARRED or not self.deployments or deployment in self.deployments
        return self.use if stays else Use.REPLACED
