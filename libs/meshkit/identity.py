"""Who is calling: set by Envoy from a verified key, carried from room to room as metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

TENANT = "x-llmmesh-tenant"
KEY = "x-llmmesh-key"
ROLES = "x-llmmesh-roles"
USER = "x-llmmesh-user"
REQUEST_ID = "x-request-id"
BOUND_KEY = "key-bound-"
"""How the ids of keys begin that were made with more to know about them than their tokens say."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller; all empty when the call carries no key."""

    tenant_id: str = ""
    key_id: str = ""
    roles: frozenset[str] = frozenset()
    request_id: str = ""
    user_id: str = ""
    """Who holds the token, where an issuer outside the mesh says so."""

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str | bytes]) -> Identity:
        """Read the identity that Envoy, or the room before, has set."""
        return cls(
            tenant_id=_text(metadata, TENANT),
            key_id=_text(metadata, KEY),
            roles=frozenset(_text(metadata, ROLES).split()),
            request_id=_text(metadata, REQUEST_ID),
            user_id=_text(metadata, USER),
        )

    def to_metadata(self) -> list[tuple[str, str]]:
        """Render the identity for the next room; empty parts are left out."""
        parts = (
            (TENANT, self.tenant_id),
            (KEY, self.key_id),
            (ROLES, " ".join(sorted(self.roles))),
            (REQUEST_ID, self.request_id),
            (USER, self.user_id),
        )
        return [(name, value) for name, value in parts if value]


NOBODY = Identity()
_current: ContextVar[Identity] = ContextVar("identity", default=NOBODY)


def current_identity() -> Identity:
    """The caller of the RPC being served; empty outside one."""
    return _current.get()


def enter_identity(identity: Identity) -> None:
    """Make `identity` the caller for the rest of this task."""
    _current.set(identity)


@contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Make calls on behalf of `identity` inside the block."""
    token = _current.set(identity)
    try:
        yield
    finally:
        _current.reset(token)


def _text(metadata: Mapping[str, str | bytes], name: str) -> str:
    value = metadata.get(name, "")
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
