"""Which ports a mesh takes: the usual ones for the first mesh of a machine, a range of its own for each further one."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from deploy.envoy.catalogue import ROOMS
from deploy.local.settings import LocalSettings

# All below the range that outgoing connections take their ports from: one chosen here is still free seconds later.
_FIRST_SERVICE = 15051
_FIRST_METRICS = 9101
_ENVOY = {"mesh": 15001, "admin": 15000, "status": 9107}
_SPARE = 20_000
_SPARE_COUNT = 100


class PortTaken(Exception):
    """Somebody else listens on the edge's port; the message names who."""


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per listener of a mesh."""

    edge: int
    services: dict[str, int]
    """By the name of the process, which is the room's for the first of each."""
    metrics: dict[str, int]
    mesh: int
    admin: int
    status: int


class Slot:
    """A mesh's place among those of this machine, held by a lock for as long as its supervisor lives."""

    def __init__(self) -> None:
        for number in count():
            path = Path(tempfile.gettempdir()) / f"llmmesh-slot-{number}"
            try:
                self.file = _opened(path)
            except PermissionError:
                if not path.exists():
                    raise  # nobody's place: no file can be made here at all
                continue
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self.file)
            else:
                self.number = number
                return

    def release(self) -> None:
        """Let go; a supervisor that inherited the lock keeps it."""
        os.close(self.file)

    @property
    def spare(self) -> range:
        """Ports no other mesh takes."""
        first = _SPARE + self.number * _SPARE_COUNT
        return range(first, first + _SPARE_COUNT)


def _opened(path: Path) -> int:
    """The file, made if it is not there: with O_CREAT Linux refuses in /tmp what others own, also what is there."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def assign_ports(settings: LocalSettings, slot: Slot) -> Ports:
    """Choose every port at once.

    Raises:
        PortTaken: If the edge's own port is in use: it is the one people know.
    """
    with ExitStack() as held:

        def claim(usual: int) -> int:
            return _claim([usual, *slot.spare] if slot.number == 0 else slot.spare, held)

        def claims(first: int) -> dict[str, int]:
            usual = {room: first + place for place, room in enumerate(ROOMS)}
            further = (name for name in settings.rooms if name not in usual)
            return {
                **{room: claim(port) for room, port in usual.items()},
                **{name: _claim(slot.spare, held) for name in further},
            }

        return Ports(
            edge=_edge(settings, held) if settings.edge_port else _claim(slot.spare, held),
            services=claims(_FIRST_SERVICE),
            metrics=claims(_FIRST_METRICS),
            **{name: claim(port) for name, port in _ENVOY.items()},
        )


def _edge(settings: LocalSettings, held: ExitStack) -> int:
    try:
        return _bind(settings.edge_host, settings.edge_port, held)
    except OSError as error:
        owner = _owner(settings.edge_port)
        raise PortTaken(
            f"Port {settings.edge_port} cannot be bound ({error.strerror}){owner}. "
            "Stop it, or choose another port with LLMMESH_PORT."
        ) from None


def _claim(candidates: list[int] | range, held: ExitStack) -> int:
    """The first that is free; any at all when none of them is."""
    for port in candidates:
        try:
            return _bind("127.0.0.1", port, held)
        except OSError:
            continue
    return _bind("127.0.0.1", 0, held)


def _bind(host: str, port: int, held: ExitStack) -> int:
    """Hold a port until all are chosen, so that none is chosen twice."""
    probe = held.enter_context(socket.socket())
    # Connections that are still being closed do not keep a port.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind((host, port))
    probe.listen(1)
    return int(probe.getsockname()[1])


def _owner(port: int) -> str:
    """Who listens on a port, as far as this user may see."""
    import psutil

    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if listens and connection.pid:
            return f": process {connection.pid} holds it, {' '.join(psutil.Process(connection.pid).cmdline())!r}"
    return ""
