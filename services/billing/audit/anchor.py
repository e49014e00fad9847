"""Where checkpoints are kept outside the database: whoever rewrites one place does not reach the other."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from pathlib import Path

from meshkit.log import get_logger
from services.billing.audit.checkpoints import Checkpoint
from services.billing.audit.export import checkpoint_line

WAITING = 10_000
"""Checkpoints kept while the file cannot be written; those forgotten are sealed in by the ones after them."""

log = get_logger()


class Anchor:
    """A file that checkpoints are added to; none when there is no path."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._waiting: deque[Checkpoint] = deque(maxlen=WAITING)

    async def keep(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, on disk when this returns. A file that cannot be written is tried again with the next."""
        if self._path is None:
            return
        self._waiting.append(checkpoint)
        lines = b"".join(checkpoint_line(each.jws) for each in self._waiting)
        try:
            await asyncio.to_thread(_append, self._path, lines)
        except OSError as error:
            log.error("anchor_unwritable", path=str(self._path), error=str(error), waiting=len(self._waiting))
        else:
            self._waiting.clear()


def _append(path: Path, lines: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
