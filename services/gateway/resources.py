"""What every request is answered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmmesh.cache.v1 import cache_pb2
from meshkit.identity import Identity
from services.gateway.accounts import Accounts
from services.gateway.catalogue import Catalogue
from services.gateway.guard_policy import GuardPolicy
from services.gateway.peers.billing import Settlement
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
class StoreOrder:
    """An answer to remember, and whose it is."""

    owner: Identity
    request: cache_pb2.StoreAnswerRequest


@dataclass(frozen=True, slots=True)
class Resources:
    """The other rooms, what is known of them, and what is done after the answer."""

    peers: Peers
    known: Knowledge
    accounts: Accounts
    settle_later: Callable[[Settlement], bool]
    store_later: Callable[[StoreOrder], bool]
