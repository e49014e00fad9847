"""Takes a changed routes file into force, or says everything that is wrong with it and keeps the old one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meshkit.log import get_logger
from services.router.measures import ROUTES_LOADS, ROUTES_REFUSED
from services.router.routes import Routes, RoutesInvalid, load_routes

log = get_logger()


@dataclass(slots=True)
class RoutesStatus:
    """Which file is in force; times are seconds since the epoch."""

    loaded_at: float = field(default_factory=time.time)
    refused_at: float = 0.0
    """When a newer file was refused; 0 while the newest is in force."""
    mistakes: Sequence[str] = ()
    """Of the refused one."""


class Reloader:
    """Watches the routes file.

    A file is another when its inode, size or time changes: so does a ConfigMap of Kubernetes, whose symlink is swapped.
    """

    def __init__(
        self, path: Path, environment: Mapping[str, str], poll_seconds: float, take: Callable[[Routes], None]
    ) -> None:
        self._path = path
        self._environment = environment
        self._poll_seconds = poll_seconds
        self._take = take
        self._asked = asyncio.Event()
        self._seen = self._look()
        self.status = RoutesStatus()

    def reload_now(self) -> None:
        """Read the file again at once, changed or not: what SIGHUP asks for."""
        self._asked.set()

    async def watch(self) -> None:
        """Look for changes until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._asked.wait()
            except TimeoutError:
                if self._look() == self._seen:
                    continue
            self._asked.clear()
            await self._reload()

    async def _reload(self) -> None:
        self._seen = self._look()
        try:
            # Beside the event loop: reading certificates and compiling rules takes longer than a token.
            routes = await asyncio.to_thread(load_routes, self._path, self._environment)
        except RoutesInvalid as refusal:
            self.status = RoutesStatus(self.status.loaded_at, time.time(), refusal.mistakes)
            ROUTES_LOADS.labels("refused").inc()
            ROUTES_REFUSED.set(1)
            log.error("routes_refused", path=str(self._path), mistakes=refusal.mistakes)
            return
        self._take(routes)
        self.status = RoutesStatus()
        ROUTES_LOADS.labels("taken").inc()
        ROUTES_REFUSED.set(0)
        log.info("routes_taken", path=str(self._path), deployments=len(routes.deployments))

    def _look(self) -> tuple[int, int, int] | None:
        """What tells one file from another; None while there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
