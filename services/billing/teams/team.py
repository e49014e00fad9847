"""What a team is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from meshkit.errors import ResourceNotFound


@dataclass(frozen=True, slots=True)
class Team:
    """A part of a tenant."""

    tenant_id: str
    id: str
    display_name: str
    create_time: datetime
    version: int = 1
    """Counts changes."""
    allowed_models: tuple[str, ...] = ()
    """What its keys may name, of what its tenant may; empty means all of it."""


def team_name(tenant_id: str, team_id: str) -> str:
    """What a team is called in errors."""
    return f"tenants/{tenant_id}/teams/{team_id}"


def team_unknown(tenant_id: str, team_id: str) -> ResourceNotFound:
    """The error for a team that does not exist, or not in this tenant."""
    return ResourceNotFound(f"Tenant {tenant_id!r} has no team {team_id!r}.", resource=team_name(tenant_id, team_id))
