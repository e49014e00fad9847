"""A real HTTP server that speaks a provider's API and does what it is told: slow, broken, fast enough for benchmarks.

In a test: `async with scripted_provider(ttft_ms=50) as provider:` then `provider.base_url`, `provider.script`;
`wire=` takes another provider's words than OpenAI's, `tls=` a certificate.
Alone: `python -m tests.support.scripted_provider --port 8099 --ttft-ms 200`; `--help` lists the knobs.
While it runs: `GET /control` shows knobs, counters and the last requests, `GET /control?wait=open_streams==0` answers
once that holds, and `POST /control` sets knobs by name; `{"reset": true}` goes back to the start.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import orjson
import uvloop

from tests.support.provider_script import Counters, Script, condition
from tests.support.scripted_http import Connection, Received
from tests.support.scripted_openai import OpenAIWire
from tests.support.scripted_reply import reply_to
from tests.support.scripted_stream import Cut, Wire, Writer, gap_seconds, stream_pieces

REMEMBERED_REQUESTS = 256


@dataclass
class ScriptedProvider:
    """The server and its controls."""

    script: Script
    wire: Wire = field(default_factory=OpenAIWire)
    counters: Counters = field(default_factory=Counters)
    requests: deque[Received] = field(default_factory=lambda: deque(maxlen=REMEMBERED_REQUESTS))
    base_url: str = ""
    token: str = ""
    """The last token issued, and the only one taken; a test may set another to revoke it."""
    _connections: set[Connection] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def bodies(self) -> list[Any]:
        """The JSON bodies of the last requests, oldest first."""
        return [received.json() for received in self.requests]

    async def until(self, holds: Callable[[Counters], bool], timeout_seconds: float = 5) -> None:
        """Return once `holds(counters)`; TimeoutError when it never does."""
        async with asyncio.timeout(timeout_seconds):
            while not holds(self.counters):
                await self._changed.wait()

    def set(self, **knobs: Any) -> None:
        """Turn knobs by name; an unknown one is a KeyError naming it."""
        known = {knob.name for knob in fields(Script)}
        if unknown := sorted(set(knobs) - known):
            raise KeyError(f"unknown knobs {unknown}; there are {sorted(known)}")
        for name, value in knobs.items():
            setattr(self.script, name, value)

    def reset(self) -> None:
        """Every knob back to its default, every counter but the open ones to zero."""
        self.set(**asdict(Script()))
        now = self.counters
        self.counters = Counters(open_streams=now.open_streams, open_connections=now.open_connections)
        self.requests.clear()

    def connection(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self._serve, self._come, self._gone)

    def close(self) -> None:
        """Hang up on everybody."""
        for connection in tuple(self._connections):
            connection.cut()

    def _come(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._count(connections=1, open_connections=1)

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._count(open_connections=-1)

    def _count(self, **steps: int) -> None:
        for name, step in steps.items():
            setattr(self.counters, name, getattr(self.counters, name) + step)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _serve(self, received: Received, peer: Connection) -> None:
        if received.path == "/control":
            await self._control(received, peer)
            return
        self.requests.append(received)
        task = self.wire.task(received)
        if task == "token":
            await self._issue(received, peer)
            return
        self._count(requests=1)
        if self.script.headers_ms:
            await asyncio.sleep(self.script.headers_ms / 1000)
        if self._fails():
            self._fail(peer)
        elif task != "health" and not self._knows(received):
            peer.send(401, self.wire.error(401, f"Invalid key: {received.headers.get('authorization')}"))
        elif self.script.html:
            peer.send(200, b"<html><body>Please log in</body></html>", "text/html; charset=utf-8")
        else:
            await self._answer(task, received, peer)

    async def _issue(self, received: Received, peer: Connection) -> None:
        """Give a token, unless the script or the request says otherwise."""
        await asyncio.sleep(self.script.token_ms / 1000)
        self._count(tokens_issued=1)
        if self.script.token_status != 200:
            headers = {"retry-after": self.script.retry_after} if self.script.retry_after else {}
            echoed = f"Refused: {received.headers.get('authorization')} {received.body.decode()}"
            peer.send(self.script.token_status, self.wire.error(self.script.token_status, echoed), **headers)
            return
        value = f"token-{self.counters.tokens_issued}"
        try:
            body = self.wire.token(received, value, self.script.token_seconds)
        except ValueError as mistake:
            peer.send(400, self.wire.error(400, str(mistake)))
            return
        self.token = value
        peer.send(200, body)

    def _knows(self, received: Received) -> bool:
        wanted = f"Bearer {self.token}" if self.wire.tokens_needed else self.script.authorization
        return not wanted or received.headers.get("authorization") == wanted

    async def _answer(self, task: str, received: Received, peer: Connection) -> None:
        try:
            match task:
                case "chat":
                    await self._chat(received, peer)
                case "embeddings":
                    peer.send(200, self.wire.embeddings(received, self.script))
                case "models":
                    model = {"id": "scripted", "object": "model", "created": 0, "owned_by": "scripted"}
                    peer.send(200, orjson.dumps({"object": "list", "data": [model]}))
                case "health":
                    peer.send(200, b"", "text/plain")
                case _:
                    message = f"Unknown request URL: {received.method} {received.path}."
                    peer.send(404, self.wire.error(404, message))
        except (KeyError, TypeError, ValueError) as mistake:
            peer.send(400, self.wire.error(400, str(mistake)))

    def _fails(self) -> bool:
        if self.script.fail_next:
            self.script.fail_next -= self.script.fail_next > 0
            return True
        return self.script.fail_rate > 0 and random.random() < self.script.fail_rate

    def _fail(self, peer: Connection) -> None:
        script = self.script
        self._count(failed=1)
        headers = {"retry-after": script.retry_after} if script.retry_after else {}
        body = self.wire.error(script.fail_status, script.error_message, script.error_code or None)
        peer.send(script.fail_status, body, **headers)

    async def _chat(self, received: Received, peer: Connection) -> None:
        script = self.script
        asked = self.wire.asked(received)
        if script.too_long:
            status, message, code = self.wire.too_long()
            peer.send(status, self.wire.error(status, message, code or None))
            return
        reply = reply_to(asked, script)
        if asked.streams:
            await self._stream(self.wire.writer(reply, asked.tells_usage and not script.omit_usage), peer)
            return
        await asyncio.sleep(script.ttft_ms / 1000 + len(reply.pieces) * gap_seconds(self.script))
        assert isinstance(self.wire, OpenAIWire), "only streams are spoken here"
        peer.send(200, self.wire.completion(reply))

    async def _stream(self, writer: Writer, peer: Connection) -> None:
        self._count(open_streams=1)
        peer.start(200, self.wire.stream_type)
        try:
            async for piece in stream_pieces(self.script, self.wire, writer):
                await peer.write(piece)
        except asyncio.CancelledError:
            self._count(open_streams=-1, aborted_streams=1)
            raise
        except Cut:
            self._count(open_streams=-1)
            peer.cut()
        else:
            self._count(open_streams=-1, finished_streams=1)
            peer.end()

    async def _control(self, received: Received, peer: Connection) -> None:
        try:
            if received.method == "POST":
                self._turn(received.json())
            if awaited := received.query.get("wait"):
                await self.until(condition(awaited), float(received.query.get("timeout_s", "5")))
        except TimeoutError:
            peer.send(504, OpenAIWire().error(504, "the condition never held"))
        except (KeyError, ValueError, orjson.JSONDecodeError) as mistake:
            peer.send(400, OpenAIWire().error(400, str(mistake)))
        else:
            peer.send(200, orjson.dumps(self._state()))

    def _turn(self, knobs: dict[str, Any]) -> None:
        if knobs.pop("reset", False):
            self.reset()
        self.set(**knobs)

    def _state(self) -> dict[str, Any]:
        requests = [
            {"path": kept.path, "headers": kept.headers, "body": kept.body.decode(errors="replace")}
            for kept in self.requests
        ]
        return {"script": asdict(self.script), "counters": asdict(self.counters), "requests": requests}


@asynccontextmanager
async def scripted_provider(
    script: Script | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    wire: Wire | None = None,
    tls: ssl.SSLContext | None = None,
    **knobs: Any,
) -> AsyncIterator[ScriptedProvider]:
    """Serve for the block; port 0 takes any free one. Leaving hangs up on every open connection."""
    provider = ScriptedProvider(script or Script(), wire or OpenAIWire())
    provider.set(**knobs)
    server = await asyncio.get_running_loop().create_server(provider.connection, host, port, ssl=tls)
    scheme = "https" if tls else "http"
    provider.base_url = f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}{provider.wire.root}"
    try:
        yield provider
    finally:
        server.close()
        provider.close()
        await provider.until(lambda now: now.open_connections == 0)


async def _run(host: str, port: int, script: Script) -> None:
    async with scripted_provider(script, host=host, port=port) as provider:
        print(f"scripted provider at {provider.base_url}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="scripted_provider", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8099)
    for knob in fields(Script):
        flag, text = "--" + knob.name.replace("_", "-"), knob.metadata["help"]
        if isinstance(knob.default, bool):
            parser.add_argument(flag, action="store_true", help=text)
        else:
            parser.add_argument(flag, type=type(knob.default), default=knob.default, help=f"{text} (%(default)s)")
    given = vars(parser.parse_args())
    host, port = given.pop("host"), given.pop("port")
    try:
        uvloop.run(_run(host, port, Script(**given)))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
