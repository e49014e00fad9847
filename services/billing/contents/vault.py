"""Keeps, shows and destroys contents."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from meshkit.errors import FieldInvalid, ResourceNotFound
from services.billing.contents.envelope import MasterKey
from services.billing.database.contents import ContentStore


@dataclass(frozen=True, slots=True)
class Contents:
    """What was asked and answered."""

    prompt: str
    answer: str


class Vault:
    """Whoever has the database reads nothing without the master key, and nothing at all once a tenant's is gone."""

    def __init__(self, store: ContentStore, master: MasterKey | None) -> None:
        self._store = store
        self._master = master

    async def keep(self, tenant_id: str, request_id: str, contents: Contents) -> None:
        """Keep contents; a request's first ones stay."""
        master = self._opened()
        key_id, wrapped = await self._store.key(tenant_id, master.new_key(tenant_id))
        plain = orjson.dumps({"prompt": contents.prompt, "answer": contents.answer})
        sealed = master.unwrapped(wrapped, tenant_id).seal(plain, request_id)
        await self._store.add(tenant_id, request_id, key_id, sealed)

    async def show(self, tenant_id: str, request_id: str) -> Contents:
        """What was kept of a request.

        Raises:
            ResourceNotFound: If nothing was, or it was let go.
        """
        found = await self._store.get(tenant_id, request_id)
        if found is None:
            raise ResourceNotFound(
                f"Nothing is kept of request {request_id!r}.", resource=f"tenants/{tenant_id}/contents/{request_id}"
            )
        wrapped, sealed = found
        plain = self._opened().unwrapped(wrapped, tenant_id).open(sealed, request_id)
        return Contents(**orjson.loads(plain))

    async def destroy(self, tenant_id: str) -> int:
        """Destroy a tenant's key and what was encrypted with it; how many requests that were."""
        return await self._store.destroy(tenant_id)

    def _opened(self) -> MasterKey:
        if self._master is None:
            raise FieldInvalid("tenant_id", "contents are not kept here: LLMMESH_BILLING_CONTENTS_KEY is not set")
        return self._master
