"""What an audit event is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

OUTCOMES = ("answered", "blocked", "stopped", "refused", "failed", "cancelled")
CACHE_STATUSES = ("", "exact", "semantic", "miss", "bypass", "unavailable")
SEVERITIES = ("low", "medium", "high", "critical")
DIRECTIONS = ("input", "output")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the guard found."""

    rule: str
    layer: str
    category: str
    severity: str
    direction: str
    masked_context: str = ""
    """What stands around it; kept with the violation, never in the chain."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A deployment that did not answer, and why."""

    deployment: str
    reason: str


@dataclass(frozen=True, slots=True)
class Event:
    """One inference decision; never holds the prompt or the answer."""

    request_id: str
    tenant_id: str
    outcome: str
    create_time: datetime
    """When it ended."""
    key_id: str = ""
    model: str = ""
    reason: str = ""
    data_class: str = "unspecified"
    guard_rules: tuple[str, ...] = ()
    guard_policy_version: str = ""
    findings: tuple[Finding, ...] = ()
    unguarded: bool = False
    tenant_policy_version: str = ""
    candidates: tuple[str, ...] = ()
    provider: str = ""
    deployment: str = ""
    cache_status: str = ""
    cached_request_id: str = ""
    cost_micros: int = 0
    currency_code: str = ""
    finish_reason: str = "unspecified"
    prompt_sha256: str = ""
    answer_sha256: str = ""
    attempts: tuple[Attempt, ...] = ()
    routes_version: str = ""
    price_time: datetime | None = None
    """Since when the price that was billed is in force."""
