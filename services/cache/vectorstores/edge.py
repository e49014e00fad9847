"""The semantic level embedded in this machine: the service's end of the pipe to the process that owns the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from meshkit.background import in_background
from meshkit.dependency import Dependency
from services.cache.vectorstores.matching import matches
from services.cache.vectorstores.owner_process import OwnerProcess
from services.cache.vectorstores.payload import ACCURATE, SKETCH, payload_of
from services.cache.vectorstores.port import Dimensions, Entry, Glance, Match, Near, Plausible, Selection

PURGE_SECONDS = 30.0


class EdgeStore:
    """Asks the owner process; while there is none, every operation is Unavailable."""

    def __init__(self, owner: OwnerProcess, *, timeout_seconds: float) -> None:
        self.owner = owner
        self._timeout_seconds = timeout_seconds
        self._dependency = Dependency("embedded vector store")

    async def plausible(self, glance: Glance) -> list[Plausible]:
        """The entries of the partition whose sketches are most similar, best first."""
        return [Plausible(*found) for found in await self._ask("plausible", glance)]

    async def nearest(self, near: Near) -> list[Match]:
        """The most similar entries of the partition, best first."""
        found = await self._ask("nearest", near)
        return matches((entry_id, similarity, payload) for entry_id, similarity, payload in found)

    async def put(self, entry: Entry) -> None:
        """Store an entry; once this returns it is in the owner's write-ahead log."""
        vectors = {ACCURATE: entry.vector, SKETCH: entry.sketch}
        await self._ask("put", {"entry_id": entry.entry_id, "vectors": vectors, "payload": payload_of(entry)})

    async def forget(self, selection: Selection, *, dry_run: bool = False) -> int:
        """Remove the entries of a selection, or with `dry_run` only count them; returns how many."""
        return int(await self._ask("count" if dry_run else "forget", selection, PURGE_SECONDS))

    async def reprice(self, worths: Mapping[str, float]) -> None:
        """Set what entries are worth, by id; those that are gone stay gone."""
        await self._ask("reprice", {"worths": worths}, PURGE_SECONDS)

    async def forget_cheapest(self, most: int, *, share: int) -> int:
        """Remove the entries worth least until at most `most` are left in all, first of tenants above their share."""
        return int(await self._ask("forget_cheapest", {"most": most, "share": share}, PURGE_SECONDS))

    async def forget_expired(self, now: float) -> int:
        """Remove entries expired by `now`; returns how many."""
        return int(await self._ask("forget_expired", {"now": now}, PURGE_SECONDS))

    async def _ask(self, operation: str, arguments: object, timeout_seconds: float | None = None) -> Any:
        timeout_seconds = timeout_seconds or self._timeout_seconds
        return await self._dependency.ask(
            lambda: self.owner.ask(operation, arguments, timeout_seconds=timeout_seconds),
            timeout_seconds=timeout_seconds,
        )


@asynccontextmanager
async def edge_store(path: Path, *, dimensions: Dimensions, timeout_seconds: float) -> AsyncIterator[EdgeStore]:
    """Keep an owner of the store in folder `path` alive for the block; it need not be up yet when the block starts."""
    owner = OwnerProcess(path, dimensions=dimensions)
    async with in_background(owner.keep_alive()):
        yield EdgeStore(owner, timeout_seconds=timeout_seconds)
