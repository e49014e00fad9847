"""What a violation is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

LONGEST_CONTEXT = 100


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that a tenant's packs count; never holds more of a text than a masked context."""

    tenant_id: str
    request_id: str
    key_id: str
    model: str
    create_time: datetime
    type: str
    severity: str
    packs: tuple[str, ...]
    """Packs that count it."""
    outcome: str
    """What became of the request."""
    rule: str = ""
    direction: str = ""
    context: str = ""
    id: int = 0
    """Its place in the list; 0 until it is kept."""
