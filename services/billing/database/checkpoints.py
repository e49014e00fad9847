"""Checkpoints of audit chains in Postgres. A trigger refuses to change or remove one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as insert_or_skip

from services.billing.audit.checkpoints import Checkpoint, CheckpointInvalid, stated
from services.billing.database.engine import Database
from services.billing.database.schema import audit_checkpoints

_GROWN = text("""
SELECT chain.tenant_id FROM audit_chains AS chain
WHERE chain.length > coalesce(
    (SELECT size FROM audit_checkpoints AS last WHERE last.tenant_id = chain.tenant_id ORDER BY size DESC LIMIT 1), 0)
ORDER BY chain.tenant_id
""")


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that should hold a checkpoint, as it lies there: somebody may have replaced what it says."""

    size: int
    jws: str

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint; None where it cannot be read."""
        with suppress(CheckpointInvalid):
            return stated(self.jws)
        return None


class CheckpointStore:
    """Keeps checkpoints, each with the peaks of its tree."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grown(self) -> list[str]:
        """Tenants whose chains are longer than their last checkpoint says."""
        return [row["tenant_id"] for row in await self._database.fetch("grown_chains", _GROWN)]

    async def last(self, tenant_id: str) -> tuple[Checkpoint, bytes] | None:
        """A tenant's newest checkpoint and the peaks of its tree.

        Raises:
            CheckpointInvalid: If somebody has put there what cannot be read.
        """
        statement = (
            select(audit_checkpoints)
            .where(audit_checkpoints.c.tenant_id == tenant_id)
            .order_by(audit_checkpoints.c.size.desc())
            .limit(1)
        )
        rows = await self._database.fetch("last_checkpoint", statement)
        return (stated(rows[0]["jws"]), rows[0]["peaks"]) if rows else None

    async def newest(self) -> list[Checkpoint]:
        """The newest checkpoint of every tenant; what cannot be read is left out."""
        each = audit_checkpoints.c
        statement = select(each.jws).ext(distinct_on(each.tenant_id)).order_by(each.tenant_id, each.size.desc())
        found = []
        for row in await self._database.fetch("newest_checkpoints", statement):
            with suppress(CheckpointInvalid):
                found.append(stated(row["jws"]))
        return found

    async def add(self, checkpoint: Checkpoint, peaks: bytes) -> bool:
        """Keep a checkpoint; False when another process was first with one that follows the same."""
        row = {
            "tenant_id": checkpoint.tenant_id,
            "size": checkpoint.size,
            "previous": checkpoint.previous,
            "jws": checkpoint.jws,
            "peaks": peaks,
        }
        statement = (
            insert_or_skip(audit_checkpoints).values(row).on_conflict_do_nothing().returning(audit_checkpoints.c.size)
        )
        return bool(await self._database.fetch("add_checkpoint", statement))

    async def page(self, tenant_id: str, *, most: int, before: int | None) -> list[Kept]:
        """At most `most` checkpoints of a tenant, newest first, smaller than `before`."""
        statement = select(audit_checkpoints.c.size, audit_checkpoints.c.jws).where(
            audit_checkpoints.c.tenant_id == tenant_id
        )
        if before is not None:
            statement = statement.where(audit_checkpoints.c.size < before)
        statement = statement.order_by(audit_checkpoints.c.size.desc()).limit(most)
        return [Kept(**row) for row in await self._database.fetch("list_checkpoints", statement)]

    async def between(self, tenant_id: str, after: int, until: int, *, most: int) -> list[Kept]:
        """At most `most` checkpoints of a tenant, oldest first, larger than `after` and at most `until`."""
        statement = (
            select(audit_checkpoints.c.size, audit_checkpoints.c.jws)
            .where(
                audit_checkpoints.c.tenant_id == tenant_id,
                audit_checkpoints.c.size > after,
                audit_checkpoints.c.size <= until,
            )
            .order_by(audit_checkpoints.c.size)
            .limit(most)
        )
        return [Kept(**row) for row in await self._database.fetch("read_checkpoints", statement)]
