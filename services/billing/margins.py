"""Margins: what a tenant is charged above what the provider takes, or below."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.billing.money import ceil_div

WHOLE_POINTS = 10_000
"""Basis points of the provider's price itself."""
LEAST_POINTS = -WHOLE_POINTS
"""A tenant that is charged nothing."""
MOST_POINTS = 10 * WHOLE_POINTS


@dataclass(frozen=True, slots=True)
class Margin:
    """A tenant's margin from `effective_time` on."""

    tenant_id: str
    basis_points: int
    """Hundredths of a percent of what the provider takes; negative for a discount."""
    effective_time: datetime


def charged(provider_micros: int, basis_points: int) -> int:
    """What is charged for what the provider takes, rounded up to a micro-unit."""
    return provider_micros + ceil_div(provider_micros * basis_points, WHOLE_POINTS)
