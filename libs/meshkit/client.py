"""Calls to other rooms: identity, request id and deadline travel along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import grpc

from meshkit.deadline import seconds_remaining
from meshkit.identity import current_identity
from meshkit.server import KEEPALIVE_SECONDS, LARGEST_MESSAGE_BYTES
from meshkit.tls import own_tls
from meshkit.tracing import client_interceptors

Stub = TypeVar("Stub")

DEFAULT_TIMEOUT_SECONDS = 30.0
"""Deadline of a unary call whose caller set none."""

_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
    # A room that restarts is found again within a second, not after grpc's two minutes; the least pause is also the
    # time a connection may take to come up, which must survive a busy machine.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Of a machine that is gone nobody says so: TCP would go on sending there for a quarter of an hour. By itself grpc
    # waits a minute for the answer to a ping, whatever its keepalive says, and after two pings without a call or a
    # message between them it sends one a minute.
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.http2.max_pings_without_data", 0),
)


@asynccontextmanager
async def connect(target: str, stub: Callable[[Any], Stub], *, wait_seconds: float = 0) -> AsyncIterator[Stub]:
    """Open a channel to `target` for the block; waits up to `wait_seconds` for it to be reachable.

    Every call carries the current identity and ends with the current deadline; a unary call without either a
    `timeout` or a deadline ends after 30 seconds.
    """
    async with _channel(target) as channel:
        if wait_seconds:
            await _reachable(channel, wait_seconds)
        yield stub(_ForwardingChannel(channel))


def _channel(target: str) -> grpc.aio.Channel:
    tls = own_tls()
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS, interceptors=client_interceptors())
    options = (*_OPTIONS, ("grpc.ssl_target_name_override", tls.envoy_name))
    return grpc.aio.secure_channel(
        target, tls.channel_credentials(), options=options, interceptors=client_interceptors()
    )


async def _reachable(channel: grpc.aio.Channel, wait_seconds: float) -> None:
    async with asyncio.timeout(wait_seconds):
        await channel.channel_ready()


class _ForwardingChannel:
    """A channel whose calls carry the identity and the deadline of the RPC being served.

    Plain wrapping instead of client interceptors: those cost a task per call and change how streams cancel.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return _forwarding(self._channel.unary_unary(method, *args, **options), DEFAULT_TIMEOUT_SECONDS)

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return _forwarding(self._channel.stream_unary(method, *args, **options), None)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return _forwarding(self._channel.unary_stream(method, *args, **options), None)

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return _forwarding(self._channel.stream_stream(method, *args, **options), None)


def _forwarding(call: Any, default_timeout_seconds: float | None) -> Callable[..., Any]:
    def invoke(*request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        if timeout is None:
            timeout = seconds_remaining()
        if timeout is None:
            timeout = default_timeout_seconds
        carried = current_identity().to_metadata()
        if metadata:
            carried.extend(cast(Sequence[tuple[str, str]], metadata))
        return call(*request, timeout=timeout, metadata=tuple(carried), **options)

    return invoke
