"""Where checkpoints are kept outside the database: whoever rewrites one place does not reach the other."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path

import aiohttp

from meshkit.log import get_logger
from services.billing.audit.checkpoints import Checkpoint
from services.billing.audit.export import MEDIA_TYPE, checkpoint_line
from services.billing.metrics import CHECKPOINTS_UNANCHORED

WAITING = 10_000
"""Checkpoints kept while a place cannot be reached; those forgotten are sealed in by the ones after them."""
AT_ONCE = 1000
WEBHOOK_SECONDS = 10.0

log = get_logger()


class AnchorAway(Exception):
    """The place does not take checkpoints now; the message says why."""


Put = Callable[[bytes], Awaitable[None]]
"""Keeps lines, for good when it returns; raises AnchorAway."""


class Anchor:
    """One place outside the database. It takes the lines that `llmmesh-audit verify --anchor` reads."""

    def __init__(self, name: str, put: Put) -> None:
        self._name = name
        self._put = put
        self._waiting: deque[Checkpoint] = deque(maxlen=WAITING)

    def add(self, checkpoint: Checkpoint) -> None:
        """Have a checkpoint kept by the next `flush`."""
        self._waiting.append(checkpoint)

    async def flush(self) -> None:
        """Keep what waits; what cannot be kept now waits for the next time."""
        try:
            while batch := list(islice(self._waiting, AT_ONCE)):
                await self._put(b"".join(checkpoint_line(each.jws) for each in batch))
                for _ in batch:
                    self._waiting.popleft()
        except AnchorAway as away:
            log.error("anchor_away", anchor=self._name, error=str(away), waiting=len(self._waiting))
        CHECKPOINTS_UNANCHORED.labels(self._name).set(len(self._waiting))


def anchors(path: Path | None, url: str | None) -> Iterator[Anchor]:
    """The places that are set."""
    if path is not None:
        yield Anchor("file", file_anchor(path))
    if url is not None:
        yield Anchor("webhook", webhook_anchor(url))


def file_anchor(path: Path) -> Put:
    """A file that lines are added to."""

    async def put(lines: bytes) -> None:
        try:
            await asyncio.to_thread(_append, path, lines)
        except OSError as error:
            raise AnchorAway(str(error)) from error

    return put


def webhook_anchor(url: str, seconds: float = WEBHOOK_SECONDS) -> Put:
    """A URL that lines are posted to; a status of 2xx says that they are kept. A repeat is possible."""

    async def put(lines: bytes) -> None:
        timeout, headers = aiohttp.ClientTimeout(total=seconds), {"Content-Type": MEDIA_TYPE}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.post(url, data=lines, headers=headers, allow_redirects=False) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise AnchorAway(type(error).__name__) from error
        if not 200 <= status < 300:
            raise AnchorAway(f"the receiver answered {status}")

    return put


def _append(path: Path, lines: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A disk that was full may have taken half a line.
    beginning = b"\n" if _ends_within_a_line(path) else b""
    with path.open("ab") as file:
        file.write(beginning + lines)
        file.flush()
        os.fsync(file.fileno())


def _ends_within_a_line(path: Path) -> bool:
    """Whether the last line of a file has no end; False where nobody can say."""
    if not path.is_file() or not path.stat().st_size:
        return False
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"
    except PermissionError:
        # It may be there to be added to and no more.
        return False
