"""What every request is answered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshkit.identity import Identity
from services.gateway.accounts import Accounts
from services.gateway.catalogue import Catalogue
from services.gateway.flights import Flights
from services.gateway.guard_policy import GuardPolicy
from services.gateway.limits.limiter import Limiter
from services.gateway.peers.billing import Settlement
from services.gateway.peers.cache import Afterwards
from services.gateway.peers.connections import Peers
from services.gateway.policies import PolicyTable


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of the other rooms without asking."""

    policies: PolicyTable
    catalogue: Catalogue
    guard_policy: GuardPolicy

    async def usable(self) -> bool:
        """Whether requests can be judged at all."""
        return self.policies.usable and self.catalogue.known


@dataclass(frozen=True, slots=True)
class CacheOrder:
    """What the cache is to be told, and on whose behalf."""

    owner: Identity
    request: Afterwards


@dataclass(frozen=True, slots=True)
class Resources:
    """The other rooms, what is known of them, and what is done after the answer."""

    peers: Peers
    known: Knowledge
    accounts: Accounts
    settle_later: Callable[[Settlement], bool]
    tell_cache_later: Callable[[CacheOrder], bool]
    flights: Flights
    limiter: Limiter
