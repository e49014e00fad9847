"""Makes and replaces virtual keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from meshkit.errors import FieldInvalid
from services.billing.once import Once
from services.billing.tenants.tenant import Key
from services.billing.tenants.tokens import SigningKey, new_key_id

DEFAULT_LIFETIME = timedelta(days=365)
LONGEST_LIFETIME = timedelta(days=3660)
NO_POLICY: Mapping[str, Any] = {}


class Keyring:
    """Makes keys: the token is shown once, its id alone is kept."""

    def __init__(
        self,
        signing_key: SigningKey,
        *,
        write: Callable[[Key, Once | None], Awaitable[Key]],
        replace: Callable[[str, Key, timedelta, int, Once | None], Awaitable[tuple[Key, Key]]],
    ) -> None:
        self._signing_key = signing_key
        self._write = write
        self._replace = replace

    async def create(
        self,
        tenant_id: str,
        *,
        display_name: str,
        roles: tuple[str, ...],
        expire_time: datetime | None,
        team_id: str = "",
        tags: tuple[str, ...] = (),
        policy: Mapping[str, Any] = NO_POLICY,
        user_id: str = "",
        once: Once | None = None,
    ) -> tuple[Key, str]:
        """Make a key that ends at `expire_time`, else in a year; returns it and its bearer token.

        Sent again, it is the same key and the same token: a signature of Ed25519 holds no chance.

        Raises:
            FieldInvalid: If the key would end in the past or outlive ten years.
            ResourceNotFound: If there is no such tenant, or it is deleted.
        """
        now = _now()
        expires = _expiry(now, expire_time or now + DEFAULT_LIFETIME)
        key_id = new_key_id(bound=bool(team_id or user_id or policy))
        new = Key(key_id, tenant_id, display_name, roles, now, expires, None, team_id, tags, policy, user_id)
        key = await self._write(new, once)
        return key, self._signing_key.sign(key)

    async def rotate(
        self,
        old: Key,
        *,
        expire_time: datetime | None,
        overlap: timedelta,
        version: int = 0,
        once: Once | None = None,
    ) -> tuple[Key, str, Key]:
        """Make a key with the rights of another, that lives as long as that one was made for, and end that one.

        Returns the new key, its bearer token and the old key; raises as `create`, and FieldInvalid for a key that is
        revoked or has a successor.
        """
        now = _now()
        expires = _expiry(now, expire_time or now + (old.expire_time - old.create_time))
        successor = replace(
            old, id=new_key_id(bound=old.restricted), create_time=now, expire_time=expires, revoke_time=None, version=1
        )
        key, ended = await self._replace(old.id, successor, overlap, version, once)
        return key, self._signing_key.sign(key), ended


def _now() -> datetime:
    """Tokens count in whole seconds; so do keys, lest the two disagree."""
    return datetime.now(UTC).replace(microsecond=0)


def _expiry(now: datetime, wanted: datetime) -> datetime:
    expires = wanted.replace(microsecond=0)
    if not now < expires <= now + LONGEST_LIFETIME:
        raise FieldInvalid("expire_time", "must lie in the future and within ten years")
    return expires
