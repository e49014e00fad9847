"""Encrypted contents in Postgres, and the wrapped keys they were encrypted with."""

from __future__ import annotations

from sqlalchemy import text

from services.billing.database.ages import old_rows
from services.billing.database.engine import Database

SWEPT_AT_ONCE = 5000

_KEY = text("""
WITH made AS (
    INSERT INTO content_keys (tenant_id, wrapped) VALUES (:tenant_id, :wrapped)
    ON CONFLICT (tenant_id) DO UPDATE SET tenant_id = content_keys.tenant_id
    RETURNING id, wrapped
)
SELECT id, wrapped FROM made
""")
"""The tenant's key: the offered one if it has none, else its own."""
_ADD = text("""
INSERT INTO audit_contents (tenant_id, request_id, key_id, sealed)
SELECT :tenant_id, :request_id, id, :sealed FROM content_keys WHERE id = :key_id FOR SHARE
ON CONFLICT DO NOTHING
""")
"""Nothing is kept under a key that was destroyed meanwhile."""
_GET = text("""
SELECT wrapped, sealed FROM audit_contents AS contents JOIN content_keys AS key ON key.id = contents.key_id
WHERE contents.tenant_id = :tenant_id AND request_id = :request_id
""")
_DESTROY_KEY = text("DELETE FROM content_keys WHERE tenant_id = :tenant_id")
_DESTROY = text("""
DELETE FROM audit_contents WHERE (tenant_id, request_id) IN (
    SELECT tenant_id, request_id FROM audit_contents AS contents
    WHERE tenant_id = :tenant_id AND NOT EXISTS (SELECT FROM content_keys WHERE id = contents.key_id)
    LIMIT 5000)
RETURNING request_id
""")
_SWEEP = text(f"""
DELETE FROM audit_contents WHERE ctid = ANY(ARRAY({old_rows("audit_contents")}))
""")  # noqa: S608 - made of constants


class ContentStore:
    """Ciphertexts and wrapped keys: nothing here can be read without the master key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def key(self, tenant_id: str, offered: bytes) -> tuple[int, bytes]:
        """Id and wrapped form of a tenant's key; `offered` becomes it when there is none."""
        row = (await self._database.fetch("content_key", _KEY, {"tenant_id": tenant_id, "wrapped": offered}))[0]
        return row["id"], row["wrapped"]

    async def add(self, tenant_id: str, request_id: str, key_id: int, sealed: bytes) -> None:
        """Keep a ciphertext, unless its key is gone or the request has one."""
        row = {"tenant_id": tenant_id, "request_id": request_id, "key_id": key_id, "sealed": sealed}
        await self._database.fetch("keep_contents", _ADD, row)

    async def get(self, tenant_id: str, request_id: str) -> tuple[bytes, bytes] | None:
        """The wrapped key and the ciphertext of a request."""
        wanted = {"tenant_id": tenant_id, "request_id": request_id}
        rows = await self._database.fetch("get_contents", _GET, wanted)
        return (rows[0]["wrapped"], rows[0]["sealed"]) if rows else None

    async def destroy(self, tenant_id: str) -> int:
        """Destroy the key, then the ciphertexts; returns how many these were.

        Nothing can be read once the key is gone, however many ciphertexts are left to go when this fails.
        """
        await self._database.fetch("destroy_content_key", _DESTROY_KEY, {"tenant_id": tenant_id})
        count = 0
        while gone := len(await self._database.fetch("destroy_contents", _DESTROY, {"tenant_id": tenant_id})):
            count += gone
        return count

    async def sweep(self, days: int) -> None:
        """Let go of contents as of violations: when the tenant's policy says, else after `days`."""
        await self._database.fetch("sweep_contents", _SWEEP, {"days": days, "most": SWEPT_AT_ONCE})
