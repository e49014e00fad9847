"""Waiting until a part of the mesh answers."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llmmesh.inference.v1 import inference_pb2, inference_pb2_grpc
from meshkit.tls import OWN_NAME, own_tls

ASK_SECONDS = 2.0
POLL_SECONDS = 0.1

Probe = Callable[[], Awaitable[bool]]


class ModelFailed(Exception):
    """A chat model could not be loaded; the message is the engine's."""


async def until(probe: Probe) -> None:
    """Return once `probe` says yes; whoever waits sets the deadline."""
    while True:
        if await probe():
            return
        await asyncio.sleep(POLL_SECONDS)


def redis(socket: Path) -> Probe:
    """Whether Redis answers PING."""

    async def ask() -> bool:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(socket))
                writer.write(b"PING\r\n")
                answer = await reader.readline()
                writer.close()
        except (OSError, TimeoutError):
            return False
        return answer.startswith(b"+PONG")

    return ask


def postgres(host: Path, user: str) -> Probe:
    """Whether Postgres lets its owner in."""
    import psycopg

    async def ask() -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(
                host=str(host), user=user, dbname="postgres", connect_timeout=int(ASK_SECONDS)
            )
        except psycopg.OperationalError:
            return False
        await connection.close()
        return True

    return ask


def room(port: int) -> Probe:
    """Whether a room says SERVING."""

    async def ask() -> bool:
        if not await _listening(port):
            return False
        async with _channel(port) as channel:
            try:
                health: Any = health_pb2_grpc.HealthStub(channel)
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=ASK_SECONDS)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return ask


async def status(url: str, token: str = "") -> int:
    """What a URL answers; 0 when nobody does."""
    return await asyncio.to_thread(_get, url, token)


def chat_models(port: int) -> Probe:
    """Whether every chat model of the inference room is loaded; raises ModelFailed when one never will be."""

    async def ask() -> bool:
        async with _channel(port) as channel:
            try:
                answer = await inference_pb2_grpc.InferenceServiceStub(channel).ListModels(
                    inference_pb2.ListModelsRequest(), timeout=ASK_SECONDS
                )
            except grpc.aio.AioRpcError:
                return False
        models = [model for model in answer.models if not model.embeds]
        for model in models:
            if model.state == inference_pb2.MODEL_STATE_FAILED:
                raise ModelFailed(f"{model.name}: {model.detail}")
        return all(model.state == inference_pb2.MODEL_STATE_READY for model in models)

    return ask


@asynccontextmanager
async def _channel(port: int) -> AsyncIterator[grpc.aio.Channel]:
    tls, target = own_tls(), f"127.0.0.1:{port}"
    if tls is None:
        opened = grpc.aio.insecure_channel(target)
    else:
        named = (("grpc.ssl_target_name_override", OWN_NAME),)
        opened = grpc.aio.secure_channel(target, tls.channel_credentials(), options=named)
    async with opened as channel:
        yield channel


async def _listening(port: int) -> bool:
    """Whether anybody does; much cheaper to ask in vain than a gRPC channel."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _get(url: str, token: str) -> int:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=ASK_SECONDS) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
