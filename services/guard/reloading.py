"""Takes changed rule packs into force, or says everything that is wrong with them and keeps the old ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meshkit.log import get_logger
from services.guard.layers import RuleLayers
from services.guard.metrics import PACKS_LOADS, PACKS_REFUSED
from services.guard.packfiles import PacksInvalid

log = get_logger()

Seen = frozenset[tuple[str, int, int, int]]


@dataclass(frozen=True, slots=True)
class PacksStatus:
    """Which packs are in force; times are seconds since the epoch."""

    loaded_at: float = field(default_factory=time.time)
    refused_at: float = 0.0
    """When newer ones were refused; 0 while the newest are in force."""
    mistakes: Sequence[str] = ()
    """Of the refused ones."""


class Reloader:
    """Watches a folder of packs.

    A pack is another when its inode, size or time changes: so does a ConfigMap of Kubernetes, whose symlink is swapped.
    Whoever has taken the layers keeps them: an answer ends under the rules under which it began.
    """

    def __init__(self, folder: Path, load: Callable[[], RuleLayers], poll_seconds: float) -> None:
        """Load the packs. Raises PacksInvalid."""
        self._folder = folder
        self._load = load
        self._poll_seconds = poll_seconds
        self._seen = self._look()
        self.layers = load()
        self.status = PacksStatus()

    async def watch(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            seen = await asyncio.to_thread(self._look)
            if seen != self._seen:
                self._seen = seen
                await self._reload()

    async def _reload(self) -> None:
        try:
            # Beside the event loop: compiling and testing take a second, in which others are to be judged.
            layers = await asyncio.to_thread(self._load)
        except PacksInvalid as refusal:
            self.status = PacksStatus(self.status.loaded_at, time.time(), refusal.mistakes)
            PACKS_LOADS.labels("refused").inc()
            PACKS_REFUSED.set(1)
            log.error("packs_refused", folder=str(self._folder), mistakes=refusal.mistakes)
            return
        self.layers, self.status = layers, PacksStatus()
        PACKS_LOADS.labels("taken").inc()
        PACKS_REFUSED.set(0)
        log.info("packs_taken", policy_version=layers.policy.version, rules=layers.policy.rule_count)

    def _look(self) -> Seen:
        """What tells one set of packs from another."""
        return frozenset(filter(None, map(_identity, self._folder.glob("*.yaml"))))


def _identity(path: Path) -> tuple[str, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:  # it is gone again
        return None
    return path.name, found.st_ino, found.st_size, found.st_mtime_ns
