"""The folder of embedded stores: one for each embedding model that was used, each owned by one process."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshkit.log import get_logger

log = get_logger()

LOCK, SHARD = "owner", "shard"


class ShardHeld(Exception):
    """Another process owns the store."""


@contextmanager
def owned(store: Path) -> Iterator[Path]:
    """Own a store for the block, made when missing; yields where its shard is. The kernel frees it with the process.

    Raises:
        ShardHeld: If another process owns it.
    """
    store.mkdir(parents=True, exist_ok=True)
    with (store / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ShardHeld(
                f"{str(store)!r} is held by process {file.read().strip() or '?'}: one cache service owns one "
                "folder, so give this one its own LLMMESH_CACHE_QDRANT_PATH or a shared LLMMESH_CACHE_QDRANT_URL"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield store / SHARD


def remove_others(folder: Path, name: str) -> None:
    """Remove all stores but the one of this name: no purge would reach them, and nobody reads them again.

    A store that another process owns stays, and so does what cannot be removed; the log says so.
    """
    for lock in folder.glob(f"*/{LOCK}"):
        if lock.parent.name != name:
            _remove(lock.parent)


def _remove(store: Path) -> None:
    try:
        with owned(store) as place:
            if place.exists():
                shutil.rmtree(place)  # before the lock file, by which it is found again should this break off
            shutil.rmtree(store)
    except (ShardHeld, OSError) as error:
        log.warning("other_vector_store_stays", path=str(store), error=str(error))
    else:
        log.info("other_vector_store_removed", path=str(store))
