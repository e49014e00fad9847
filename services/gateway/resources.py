"""What every request is answered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmmesh.cache.v1 import cache_pb2
from meshkit.identity import Identity
from services.gateway.accounts import Accounts
from services.gateway.catalogue import Catalogue
from services.gateway.guard_policy import GuardPolicy
from services.gateway.peers.billing import BillingPeer, Settlement
from services.gateway.peers.cache import CachePeer
from services.gateway.peers.guard import GuardPeer
from services.gateway.peers.router import RouterPeer
from services.gateway.policies import PolicyTable


@dataclass(frozen=True, slots=True)
class StoreOrder:
    """An answer to remember, and whose it is."""

    owner: Identity
    request: cache_pb2.StoreAnswerRequest


@dataclass(frozen=True, slots=True)
class Resources:
    """The other rooms, what is known of them in memory, and what is done after the answer."""

    cache: CachePeer
    guard: GuardPeer
    billing: BillingPeer
    router: RouterPeer
    policies: PolicyTable
    catalogue: Catalogue
    guard_policy: GuardPolicy
    accounts: Accounts
    settle_later: Callable[[Settlement], bool]
    store_later: Callable[[StoreOrder], bool]
