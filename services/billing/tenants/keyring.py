"""Makes and replaces virtual keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from meshkit.errors import FieldInvalid
from services.billing.tenants.tenant import Key, tenant_unknown
from services.billing.tenants.tokens import SigningKey, new_key_id

DEFAULT_LIFETIME = timedelta(days=365)
LONGEST_LIFETIME = timedelta(days=3660)
NO_POLICY: Mapping[str, Any] = {}


class Keyring:
    """Makes keys: the token is shown once, its id alone is kept."""

    def __init__(self, signing_key: SigningKey, *, write: Callable[[Key], Awaitable[bool]]) -> None:
        self._signing_key = signing_key
        self._write = write

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
    ) -> tuple[Key, str]:
        """Make a key that ends at `expire_time`, else in a year; returns it and its bearer token.

        Raises:
            FieldInvalid: If the key would end in the past or outlive ten years.
            ResourceNotFound: If there is no such tenant.
        """
        # Tokens count in whole seconds; so do keys, lest the two disagree.
        now = datetime.now(UTC).replace(microsecond=0)
        expires = (expire_time or now + DEFAULT_LIFETIME).replace(microsecond=0)
        if not now < expires <= now + LONGEST_LIFETIME:
            raise FieldInvalid("expire_time", "must lie in the future and within ten years")
        key = Key(new_key_id(), tenant_id, display_name, roles, now, expires, None, team_id, tags, policy, user_id)
        if not await self._write(key):
            raise tenant_unknown(tenant_id)
        return key, self._signing_key.sign(key)

    async def replace(self, old: Key, expire_time: datetime | None) -> tuple[Key, str]:
        """Make a key with the rights of another, that lives as long as that one was made for; raises as `create`."""
        return await self.create(
            old.tenant_id,
            display_name=old.display_name,
            roles=old.roles,
            expire_time=expire_time or datetime.now(UTC) + (old.expire_time - old.create_time),
            team_id=old.team_id,
            tags=old.tags,
            policy=old.policy,
            user_id=old.user_id,
        )
