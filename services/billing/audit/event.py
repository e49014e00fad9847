"""What an audit event is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

OUTCOMES = ("answered", "blocked", "stopped", "refused", "failed", "cancelled")
CACHE_STATUSES = ("", "exact", "semantic", "miss", "bypass", "unavailable")


@dataclass(frozen=True, slots=True)
class Event:
    """One inference decision; never holds the prompt or the answer."""

    request_id: str
    tenant_id: str
    key_id: str
    model: str
    outcome: str
    reason: str
    data_class: str
    guard_rules: tuple[str, ...]
    guard_policy_version: str
    deployment: str
    cache_status: str
    prompt_sha256: str
    answer_sha256: str
    create_time: datetime | None
    """When it ended; None means when it is written."""
    id: int = 0
    """Its place in the log; 0 until it is written."""
