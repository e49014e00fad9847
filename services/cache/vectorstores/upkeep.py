"""When the owner of the embedded store flushes and compacts: in quiet moments, and at the latest after so much work."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any

from meshkit.log import get_logger
from services.cache.vectorstores.edge_shard import Shard

QUIET_SECONDS = 2.0
"""No request for so long is a quiet moment."""
FLUSH_AFTER_SECONDS = 30.0
"""The longest that changes live in the log alone; a start replays the log."""
COMPACT_WHEN_QUIET = 2_000
COMPACT_ALWAYS = 40_000
"""Entries put and removed before compacting. Without it what was removed stays in memory."""
PAUSE_SECONDS = 30.0
"""After a flush or a compaction that failed: of a full disk there will be more."""
WRITING = frozenset({"put", "reprice"})
REMOVING = frozenset({"forget", "forget_expired", "forget_cheapest"})
"""Operations that answer how many entries they removed."""

log = get_logger()


class Upkeep:
    """Counts changes and looks after the store when it is time. What fails is tried again later: the log is whole."""

    def __init__(self, store: Shard) -> None:
        self._store = store
        self._changes = 0
        self._dirty_since: float | None = None
        self._paused_until = 0.0

    def note(self, operation: str, answer: Any = None) -> None:
        """Count what an operation has changed that was carried out."""
        changed = int(answer) if operation in REMOVING else int(operation in WRITING)
        if changed:
            self._changes += changed
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
        if self._done(self._store.optimize):
            self._changes = 0

    def _flush(self) -> None:
        if self._done(self._store.flush):
            self._dirty_since = None

    def _done(self, work: Callable[[], None]) -> bool:
        if time.monotonic() < self._paused_until:
            return False
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the engine raises bare Exception
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            log.warning("vector_store_upkeep_failed", work=work.__name__, error=str(error))
            return False
        return True


def _readable(pipe: socket.socket, timeout_seconds: float | None) -> bool:
    readable, _, _ = select.select([pipe], [], [], timeout_seconds)
    return bool(readable)
