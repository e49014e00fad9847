"""The life of a gRPC server: bind, serve, drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from meshkit.log import get_logger
from meshkit.metrics import exposed
from meshkit.serving import Calls, Context, Last, MeshInterceptor, says_last
from meshkit.settings import ServiceSettings
from meshkit.tls import own_tls
from meshkit.tracing import server_interceptors, start_tracing

__all__ = ["Context", "Last", "Mount", "running", "says_last"]

LARGEST_MESSAGE_BYTES = 20 * 1024 * 1024
"""The edge's body limit with room for the envelope."""
KEEPALIVE_SECONDS = 10
"""How often a connection with calls under way is asked whether it is still there; so long its answer may take."""
PROBE_SECONDS = 1.0
"""Time between two looks at whether a room is ready."""
FIRST_PROBE_SECONDS = 0.1
"""The same until it first was: its callers are waiting."""
ENDING_SECONDS = 3.0
"""Longest that calls which draining has cut off are waited for: they still write down what they owe."""

Probe = Callable[[], Awaitable[bool]]

log = get_logger()


@dataclass(frozen=True, slots=True)
class Mount:
    """A servicer and the generated function that adds it to a server."""

    add_to_server: Callable[[Any, Any], None]
    servicer: object

    @property
    def service_name(self) -> str:
        """The proto service's full name, read off the generated function's own name."""
        package = self.add_to_server.__module__.rpartition(".")[0]
        return f"{package}.{self.add_to_server.__name__.removeprefix('add_').removesuffix('Servicer_to_server')}"


class _Unregistered:
    """A server to generated code that serves its methods all the same, by name.

    On every call grpc.aio waits anew for one future per registered method: with sixty of them that costs a call as
    much as all else does.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve what `handlers` know."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Do nothing: the same methods come as generic ones."""


@asynccontextmanager
async def running(
    mounts: Sequence[Mount],
    config: ServiceSettings,
    *,
    room: str,
    ready: Probe | None = None,
    revoked: Callable[[str], bool] = lambda _: False,
) -> AsyncIterator[int]:
    """Serve `mounts` until the block ends, then drain; yields the bound port.

    RPCs that need a key refuse those that `revoked` says are no longer good.

    Health of "" follows `ready`, asked every second; without it the room is always SERVING. Draining turns health
    to NOT_SERVING, refuses new calls and lets running ones go on for `config.drain_seconds`. Those it then cuts off
    have done what they do at their end when the block is left.
    """
    start_tracing(room)
    with exposed(config.metrics_listen):
        health, calls = HealthServicer(), Calls(revoked)
        server = _server(mounts, health, calls)
        tls = own_tls()
        if tls:
            port = server.add_secure_port(config.listen, tls.server_credentials())
        else:
            port = server.add_insecure_port(config.listen)
        await server.start()
        watching = asyncio.create_task(_follow(ready, health))
        log.info("serving", port=port)
        try:
            yield port
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await health.enter_graceful_shutdown()
            await server.stop(config.drain_seconds)
            await _ended(calls)


async def _ended(calls: Calls) -> None:
    """Wait for the methods that the end of draining has cancelled: grpc waits for their connections alone."""
    try:
        async with asyncio.timeout(ENDING_SECONDS):
            await calls.ended()
    except TimeoutError:
        log.error("calls_left_behind")


def _server(mounts: Sequence[Mount], health: HealthServicer, calls: Calls) -> grpc.aio.Server:
    server = grpc.aio.server(
        interceptors=[*server_interceptors(), MeshInterceptor(calls)],
        options=[
            ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
            ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
            # A second process on the port must fail to bind, not share it unseen.
            ("grpc.so_reuseport", 0),
            # Rooms may be asked directly, and grpc ends connections that are pinged more often than every five minutes.
            ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 500),
        ],
    )
    unregistered: Any = _Unregistered(server)  # generated code asks for a whole server and uses this much of it
    for mount in mounts:
        mount.add_to_server(mount.servicer, unregistered)
    health_pb2_grpc.add_HealthServicer_to_server(health, unregistered)
    names = [mount.service_name for mount in mounts]
    reflection.enable_server_reflection([*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], unregistered)
    return server


async def _follow(ready: Probe | None, health: HealthServicer) -> None:
    """Keep the health status equal to what the probe says; without a probe, say SERVING once."""
    status = health_pb2.HealthCheckResponse
    if ready is None:
        await health.set("", status.SERVING)
        return
    pause = FIRST_PROBE_SECONDS
    while True:
        is_ready = await _answer(ready)
        await health.set("", status.SERVING if is_ready else status.NOT_SERVING)
        pause = PROBE_SECONDS if is_ready else pause
        await asyncio.sleep(pause)


async def _answer(ready: Probe) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS * 5):
            return await ready()
    except Exception as error:  # noqa: BLE001 - a probe that fails is an answer
        log.warning("probe_failed", error=type(error).__name__)
        return False
