"""Starts the process that owns the embedded store, talks to it, and starts it again when it dies."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from meshkit.dependency import Unavailable, Unusable
from meshkit.log import get_logger
from services.cache.vectorstores.port import Dimensions
from services.cache.vectorstores.wire import LENGTH_BYTES, FrameInvalid, Message, frame, frame_length, message_in

MOST_PENDING = 256
"""Requests the owner may be behind before more are refused."""
MOST_UNSENT_BYTES = 8 * 1024 * 1024
START_SECONDS = 120.0
"""Longest that the owner may take to replay its log."""
STOP_SECONDS = 5.0
"""Longest that the owner may take to flush and close; then it is killed, which loses nothing acknowledged."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0

log = get_logger()


class OwnerProcess:
    """The owner as the service sees it: a pipe that answers, or nothing."""

    def __init__(self, path: Path, *, dimensions: Dimensions) -> None:
        self._path = path
        self._dimensions = dimensions
        self._ids = count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._why_away = "the owner process is starting"
        self.pid = 0
        """Process id of the owner that serves, or served last."""
        self.serving = asyncio.Event()
        """Set while an owner answers."""

    async def ask(self, operation: str, arguments: object, *, timeout_seconds: float) -> Any:
        """Have the owner carry out `operation`; what it has not begun by the timeout it never does.

        Raises:
            Unavailable: If there is no owner, it is too far behind, or it failed.
        """
        if self._writer is None:
            raise Unavailable(self._why_away)
        if len(self._pending) >= MOST_PENDING or _unsent_bytes(self._writer) > MOST_UNSENT_BYTES:
            raise Unavailable("the owner process is too far behind")
        number = next(self._ids)
        answer = self._pending[number] = asyncio.get_running_loop().create_future()
        until = time.monotonic() + timeout_seconds
        try:
            self._writer.write(frame({"id": number, "operation": operation, "arguments": arguments, "until": until}))
            return await answer
        finally:
            del self._pending[number]

    async def keep_alive(self) -> None:
        """Run an owner, and another whenever it ends, until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            await self._run_once()
            lived = time.monotonic() - started
            pause = FIRST_PAUSE_SECONDS if lived > LONGEST_PAUSE_SECONDS else min(pause * 2, LONGEST_PAUSE_SECONDS)
            log.warning("vector_store_owner_gone", reason=self._why_away, next_try_seconds=pause)
            await asyncio.sleep(pause)

    async def _run_once(self) -> None:
        """One owner from start to end, however it ends."""
        try:
            async with self._started() as (reader, writer):
                await self._meet(reader, writer)
                await self._read_answers(reader)
        except asyncio.IncompleteReadError:
            self._why_away = "the owner process ended"
        except (Unavailable, OSError, FrameInvalid, TimeoutError) as error:
            self._why_away = str(error) or "the owner process did not start in time"
        finally:
            self._part()

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as undo:
            undo.callback(ours.close)
            process = self._spawn(theirs.fileno())
            undo.pop_all()
        self.pid = process.pid
        try:
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                yield reader, writer
            finally:
                writer.close()
        finally:
            await asyncio.to_thread(_end, process)

    def _spawn(self, descriptor: int) -> subprocess.Popen[bytes]:
        """Start the owner. By vfork, which asyncio's own way does not use: gRPC's threads do not survive a fork."""
        lengths = [str(self._dimensions.accurate), str(self._dimensions.sketch)]
        arguments = [str(descriptor), str(self._path), *lengths, str(os.getpid())]
        return subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
            [sys.executable, "-m", "services.cache.vectorstores.edge_owner", *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=(descriptor,),
        )

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(START_SECONDS):
            greeting = await _read(reader)
        if not greeting["ready"]:
            raise Unavailable(greeting["error"])
        self._writer = writer
        self.serving.set()
        log.info("vector_store_ready", path=str(self._path), entries=greeting["entries"], owner=self.pid)

    async def _read_answers(self, reader: asyncio.StreamReader) -> None:
        while True:
            message = await _read(reader)
            if "id" not in message:  # its last words
                raise Unavailable(str(message.get("error", "the owner process failed")))
            answer = self._pending.get(message["id"])
            if answer is None or answer.done():
                continue
            if "error" in message:
                answer.set_exception(Unusable(message["error"]))
            else:
                answer.set_result(message["answer"])

    def _part(self) -> None:
        self._writer = None
        self.serving.clear()
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(Unavailable("the owner process ended"))


async def _read(reader: asyncio.StreamReader) -> Message:
    length = frame_length(await reader.readexactly(LENGTH_BYTES))
    return message_in(await reader.readexactly(length))


def _unsent_bytes(writer: asyncio.StreamWriter) -> int:
    return writer.transport.get_write_buffer_size()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process whose pipe is closed; kill it when it takes too long."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
