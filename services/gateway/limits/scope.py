"""Whose requests are counted together, and how many of them there may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from llmmesh.tenant.v1 import tenant_pb2
from meshkit.identity import Identity

Level: TypeAlias = Literal["tenant", "team", "key", "user"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much in what time; 0 is no limit."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    concurrent_streams: int = 0

    @classmethod
    def from_message(cls, message: tenant_pb2.RateLimits) -> Limits:
        """Read limits."""
        return cls(
            message.requests_per_minute,
            message.tokens_per_minute,
            message.tokens_per_day,
            message.concurrent_streams,
        )

    def __bool__(self) -> bool:
        return self != NO_LIMITS

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how long prompt and answer are."""
        return bool(self.tokens_per_minute or self.tokens_per_day)

    @property
    def outlasts_admission(self) -> bool:
        """Whether something is to be told once the answer is complete."""
        return self.counts_tokens or bool(self.concurrent_streams)


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Scope:
    """Requests that are counted together."""

    level: Level
    tenant_id: str
    name: str
    """Of the team, the key or the user; of the tenant itself."""
    limits: Limits


@dataclass(frozen=True, slots=True)
class KeyTies:
    """What one key adds to the limits of its tenant."""

    team_id: str = ""
    user_id: str = ""
    limits: Limits = NO_LIMITS
    """In place of the tenant's for each key."""


NO_TIES = KeyTies()


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits of a tenant, as one of its keys meets them."""

    tenant: Limits = NO_LIMITS
    each_key: Limits = NO_LIMITS
    each_user: Limits = NO_LIMITS
    teams: Mapping[str, Limits] = field(default_factory=dict)
    ties: KeyTies = NO_TIES

    @classmethod
    def from_message(cls, message: tenant_pb2.TenantRateLimits) -> RateLimits | None:
        """Read the limits of a tenant; None when nothing is limited."""
        limits = cls(
            Limits.from_message(message.tenant),
            Limits.from_message(message.each_key),
            Limits.from_message(message.each_user),
            {name: Limits.from_message(team) for name, team in message.teams.items()},
        )
        return limits if limits.limited else None

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return bool(self.tenant or self.each_key or self.each_user or self.teams or self.ties.limits)

    def scopes(self, caller: Identity) -> list[Scope]:
        """Where a request of the caller counts, the widest first."""
        ties = self.ties
        user_id = caller.user_id or ties.user_id
        levels: list[tuple[Level, str, Limits]] = [
            ("tenant", caller.tenant_id, self.tenant),
            ("team", ties.team_id, self.teams.get(ties.team_id, NO_LIMITS)),
            ("key", caller.key_id, ties.limits or self.each_key),
            ("user", user_id, self.each_user if user_id else NO_LIMITS),
        ]
        return [Scope(level, caller.tenant_id, name, limits) for level, name, limits in levels if limits]
