"""What an alert is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.billing.audit.event import SEVERITIES


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that people should know of. It leaves the mesh: it holds nothing of a prompt or an answer."""

    kind: str
    """What raised it: "violation", "audit", "budget", "cost"."""
    tenant_id: str
    severity: str
    """low, medium, high or critical."""
    title: str
    text: str
    fingerprint: str
    """Alerts that share it are one: a channel carries the first and counts the others until it has been quiet."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An alert on its way through one channel."""

    id: int
    alert: Alert
    create_time: datetime
    repeats: int
    """How often it was raised again since the last one that was carried."""
    attempts: int


def at_least(severity: str, least: str) -> bool:
    """Whether a severity is as bad as another, or worse."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(least)
