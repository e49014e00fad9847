"""When the owner of the embedded store flushes and compacts: in quiet moments, and at the latest after so much work."""

from __future__ import annotations

import select
import socket
import time

from services.cache.vectorstores.edge_shard import Shard

QUIET_SECONDS = 2.0
"""No request for so long is a quiet moment."""
FLUSH_AFTER_SECONDS = 30.0
"""The longest that changes live in the log alone; a start replays the log."""
COMPACT_WHEN_QUIET = 1_000
COMPACT_ALWAYS = 20_000
"""Changes before compacting. Without it what was removed stays in memory."""
CHANGING = frozenset({"put", "forget", "forget_expired", "forget_cheapest", "reprice"})


class Upkeep:
    """Counts changes and looks after the store when it is time."""

    def __init__(self, store: Shard) -> None:
        self._store = store
        self._changes = 0
        self._dirty_since: float | None = None

    def note(self, operation: str) -> None:
        """Count an operation that was carried out."""
        if operation in CHANGING:
            self._changes += 1
            self._dirty_since = self._dirty_since or time.monotonic()

    def wait_for_work(self, pipe: socket.socket) -> None:
        """Return when `pipe` has a request, having done what was due."""
        if self._changes >= COMPACT_ALWAYS:
            self._compact()
        if self._dirty_since and time.monotonic() - self._dirty_since > FLUSH_AFTER_SECONDS:
            self._flush()
        while not _readable(pipe, QUIET_SECONDS if self._dirty_since else None):
            if self._changes >= COMPACT_WHEN_QUIET:
                self._compact()
            self._flush()

    def _compact(self) -> None:
        self._store.optimize()
        self._changes = 0

    def _flush(self) -> None:
        self._store.flush()
        self._dirty_since = None


def _readable(pipe: socket.socket, timeout_seconds: float | None) -> bool:
    readable, _, _ = select.select([pipe], [], [], timeout_seconds)
    return bool(readable)
