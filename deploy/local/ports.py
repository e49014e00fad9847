"""Which ports a mesh takes: the usual ones when they are free, any others when not."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from deploy.envoy.catalogue import ROOMS
from deploy.local.settings import LocalSettings

_FIRST_SERVICE = 50051
_FIRST_METRICS = 9101
_NOT_EPHEMERAL = range(20000, 30000)
"""Below Linux's usual net.ipv4.ip_local_port_range."""
_ENVOY = {"mesh": 15001, "admin": 15000, "status": 9107}


class PortTaken(Exception):
    """Somebody else listens on the edge's port; the message names who."""


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per listener of a mesh."""

    edge: int
    services: dict[str, int]
    metrics: dict[str, int]
    mesh: int
    admin: int
    status: int


def assign_ports(settings: LocalSettings) -> Ports:
    """Choose every port at once.

    Raises:
        PortTaken: If the edge's own port is in use: it is the one people know.
    """
    with ExitStack() as held:
        return Ports(
            edge=_edge(settings, held),
            services={room: _claim(_FIRST_SERVICE + place, held) for place, room in enumerate(ROOMS)},
            metrics={room: _claim(_FIRST_METRICS + place, held) for place, room in enumerate(ROOMS)},
            **{name: _claim(port, held) for name, port in _ENVOY.items()},
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


def _claim(preferred: int, held: ExitStack) -> int:
    """The preferred port, or one that no outgoing connection can take while its process is being restarted."""
    for port in (preferred, *random.sample(_NOT_EPHEMERAL, 100)):
        with suppress(OSError):
            return _bind("127.0.0.1", port, held)
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
