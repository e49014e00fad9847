"""A lean HTTP/1.1 server connection: one request at a time, replies whole or piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httptools
import orjson

REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class Received:
    """One request as it came over the wire."""

    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The last value of each query parameter."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    def json(self) -> Any:
        """The body as JSON; an empty body is an empty object."""
        return orjson.loads(self.body or b"{}")


Handler = Callable[[Received, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """Parses requests and hands each to `handler` in a task, which is cancelled when the peer hangs up."""

    def __init__(
        self, handler: Handler, made: Callable[[Connection], None], lost: Callable[[Connection], None]
    ) -> None:
        self._handler = handler
        self._made = made
        self._lost = lost
        self._received = Received()
        self._body: list[bytes] = []
        self._writable = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are duck-typed.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._writable.set()
        self._made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._lost(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_url(self, url: bytes) -> None:
        self._received.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._received.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        received, self._received = self._received, Received()
        received.method = self._parser.get_method().decode()
        received.body = b"".join(self._body)
        self._body.clear()
        self._task = asyncio.create_task(self._handler(received, self))

    def send(self, status: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        """Send a whole reply."""
        head = self._head(status, content_type, headers) + b"content-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)

    def start(self, status: int, content_type: str, **headers: str) -> None:
        """Send the head of a reply whose body follows in pieces."""
        self._transport.write(self._head(status, content_type, headers) + b"transfer-encoding: chunked\r\n\r\n")

    async def write(self, piece: bytes) -> None:
        """Send one piece; waits while the peer is slow."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await self._writable.wait()

    def end(self) -> None:
        """Say that the body is complete."""
        self._transport.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection, even in the middle of a body."""
        self._transport.close()

    @staticmethod
    def _head(status: int, content_type: str, headers: dict[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}", f"content-type: {content_type}"]
        lines.extend(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())
        return ("\r\n".join(lines) + "\r\n").encode("latin-1")
