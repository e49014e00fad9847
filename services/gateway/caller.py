"""Who asks, and how the answer may be found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from uuid import uuid4

from meshkit.identity import Identity, current_identity, enter_identity

CACHE_HEADER = "x-llmmesh-cache"
LONGEST_REQUEST_ID = 200
FRESH_DIRECTIVES = frozenset({"no-cache", "no-store"})


def identified() -> Identity:
    """The caller of the RPC being served, with a request id; what is called from here on carries it too."""
    identity = current_identity()
    if not 0 < len(identity.request_id) <= LONGEST_REQUEST_ID:
        identity = replace(identity, request_id=str(uuid4()))
        enter_identity(identity)
    return identity


def wants_fresh_answer(metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Whether the caller's headers say to neither read nor write the cache."""
    return any(_asks_for_fresh(name, value) for name, value in metadata or () if isinstance(value, str))


def _asks_for_fresh(name: str, value: str) -> bool:
    if name == "cache-control":
        return not FRESH_DIRECTIVES.isdisjoint(part.strip() for part in value.lower().split(","))
    return name == CACHE_HEADER and value == "bypass"
