"""The process that owns the embedded store: `python -m services.cache.vectorstores.edge_owner FD PATH LENGTHS PARENT`.

Its own process because the engine holds Python's lock while it works, for seconds when it compacts: in the service's
process that would stop every other lookup. It ends when its parent does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.cache.vectorstores.edge_shard import Shard, shard
from services.cache.vectorstores.folder import ShardHeld
from services.cache.vectorstores.port import Dimensions, Glance, Near, Selection
from services.cache.vectorstores.upkeep import Upkeep
from services.cache.vectorstores.wire import LENGTH_BYTES, Message, frame, frame_length, message_in

PR_SET_PDEATHSIG = 1


class Owner:
    """Answers one request after another, and looks after the store in between."""

    def __init__(self, store: Shard, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._upkeep = Upkeep(store)
        self._operations: dict[str, Callable[..., Any]] = {
            "plausible": lambda **glance: store.plausible(Glance(**glance)),
            "nearest": lambda **near: store.nearest(Near(**near)),
            "put": store.put,
            "count": lambda **selection: store.count(Selection(**selection)),
            "forget": lambda **selection: store.forget(Selection(**selection)),
            "reprice": store.reprice,
            "forget_cheapest": store.forget_cheapest,
            "forget_expired": store.forget_expired,
        }
        self._send({"ready": True, "entries": store.count()})

    def serve(self) -> None:
        """Work until the other end of the pipe is closed."""
        while True:
            self._upkeep.wait_for_work(self._pipe)
            request = self._receive()
            if request is None:
                return
            # Its caller has given up: after a long pause the queue drains without doing work nobody wants.
            if time.monotonic() < request["until"]:
                self._send(self._answer(request))

    def _answer(self, request: Message) -> Message:
        try:
            answer = self._operations[request["operation"]](**request["arguments"])
        except Exception as error:  # noqa: BLE001 - the engine raises bare Exception; the caller is told
            return {"id": request["id"], "error": f"{type(error).__name__}: {error}"}
        self._upkeep.note(request["operation"], answer)
        return {"id": request["id"], "answer": answer}

    def _receive(self) -> Message | None:
        head = self._pipe.recv(LENGTH_BYTES, socket.MSG_WAITALL)
        if len(head) < LENGTH_BYTES:
            return None
        length = frame_length(head)
        body = self._pipe.recv(length, socket.MSG_WAITALL)
        return message_in(body) if len(body) == length else None

    def _send(self, message: Message) -> None:
        self._pipe.sendall(frame(message))


def main() -> None:
    """Own the store until the parent closes the pipe or ends."""
    descriptor, path, accurate, sketch, parent = sys.argv[1:]
    dimensions = Dimensions(int(accurate), int(sketch))
    _end_with(int(parent))
    with socket.socket(fileno=int(descriptor)) as pipe:
        try:
            with shard(Path(path), dimensions) as store:
                Owner(store, pipe).serve()
        except (BrokenPipeError, ConnectionResetError):
            return
        except ShardHeld as error:
            pipe.sendall(frame({"ready": False, "error": str(error)}))
        except Exception as error:  # noqa: BLE001 - the engine raises bare Exception; the parent is told
            pipe.sendall(frame({"ready": False, "error": f"{type(error).__name__}: {error}"}))


def _end_with(parent: int) -> None:
    """Die with the parent even while the engine works; signals to the whole group are the parent's to handle."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    main()
