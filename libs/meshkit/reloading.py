"""Takes changed files into force while running, or says everything that is wrong with them and keeps the old ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge

from meshkit.log import get_logger

log = get_logger()

Loaded = TypeVar("Loaded")
FileStamp = tuple[Path, int, int, int]
"""A file by its path, inode, size and time of change in nanoseconds."""


class FilesInvalid(ValueError):
    """Files that cannot be used; `mistakes` names each place and what is wrong there."""

    def __init__(self, text: str, mistakes: Sequence[str]) -> None:
        super().__init__(text)
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class LoadStatus:
    """Which files are in force; times are seconds since the epoch."""

    loaded_at: float = field(default_factory=time.time)
    refused_at: float = 0.0
    """When newer ones were refused; 0 while the newest are in force."""
    mistakes: Sequence[str] = ()
    """Of the refused ones."""


@dataclass(frozen=True, slots=True)
class LoadMeters:
    """What a scrape sees of it."""

    loads: Counter
    """By outcome: `taken` or `refused`."""
    refused: Gauge
    """1 while newer files are refused."""


class Reloader(Generic[Loaded]):
    """Holds what was loaded from files, and loads it again when they change.

    A file is another when its inode, size or time changes: so does a ConfigMap of Kubernetes, whose symlink is swapped.
    Whoever has taken what is in force keeps it: an answer ends under what it began with.
    """

    def __init__(
        self,
        name: str,
        files: Callable[[], Iterable[Path]],
        load: Callable[[], Loaded],
        meters: LoadMeters,
        poll_seconds: float,
    ) -> None:
        """Load the files, which the log calls `name`. Raises FilesInvalid."""
        self._name = name
        self._files = files
        self._load = load
        self._meters = meters
        self._poll_seconds = poll_seconds
        self._asked = asyncio.Event()
        self._seen = self._look()
        self.current = load()
        self.status = LoadStatus()

    def reload_now(self) -> None:
        """Read the files again at once, changed or not: what SIGHUP asks for."""
        self._asked.set()

    async def watch(self, take: Callable[[Loaded], None] | None = None) -> None:
        """Look for changes until cancelled; `take` is told of what comes into force."""
        while True:
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._asked.wait()
            except TimeoutError:
                if await asyncio.to_thread(self._look) == self._seen:
                    continue
            self._asked.clear()
            await self._reload(take)

    async def _reload(self, take: Callable[[Loaded], None] | None) -> None:
        self._seen = await asyncio.to_thread(self._look)
        try:
            # Beside the event loop: compiling rules takes a second, in which others are to be served.
            loaded = await asyncio.to_thread(self._load)
        except FilesInvalid as refusal:
            self.status = LoadStatus(self.status.loaded_at, time.time(), refusal.mistakes)
            self._count("refused")
            log.error("files_refused", what=self._name, files=self._files_seen, mistakes=refusal.mistakes)
            return
        if take is not None:
            take(loaded)
        self.current, self.status = loaded, LoadStatus()
        self._count("taken")
        log.info("files_taken", what=self._name, files=self._files_seen)

    def _count(self, outcome: str) -> None:
        self._meters.loads.labels(outcome).inc()
        self._meters.refused.set(outcome == "refused")

    @property
    def _files_seen(self) -> list[str]:
        return sorted(path.name for path, *_ in self._seen)

    def _look(self) -> frozenset[FileStamp]:
        """What tells one set of files from another; one that is gone is not in it."""
        return frozenset(filter(None, map(_stamp, self._files())))


def _stamp(path: Path) -> FileStamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return path, found.st_ino, found.st_size, found.st_mtime_ns
