"""HTTP as every adapter speaks it: deadlines, credentials, streams read to their end, each way to fail named."""

from __future__ import annotations

import asyncio
import copy
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from llmmesh.chat.v1 import chat_pb2
from meshkit.deadline import time_left
from meshkit.egress import Cargo, Destination
from services.router.deployment import TimeLimits
from services.router.providers.answer_reader import AnswerReader, decoded
from services.router.providers.credentials import Credential
from services.router.providers.dispatch import current_dispatch
from services.router.providers.error_reply import http_failure
from services.router.providers.provider import AnswerEvent, Condition, FailureKind, Health, ProviderFailure

LARGEST_BODY_BYTES = 128 * 1024 * 1024
LARGEST_ERROR_BYTES = 64 * 1024
ERROR_SECONDS = 5.0
FETCH_SECONDS = 10.0
"""Longest request for a token."""
HEALTH_SECONDS = 2.0
FIGURES_SECONDS = 2.0
"""Longest wait for the token counts that follow an answer."""
TAIL_SECONDS = 0.05
"""Longest wait for the end of a stream after [DONE]: a connection read to its end can be used again."""

UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True)
class Wire:
    """Connections, and the authorities whose certificates are believed; None for the system's."""

    http: aiohttp.ClientSession
    trust: ssl.SSLContext | None = None

    @asynccontextmanager
    async def requested(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response, whatever its status; leaving the block before its end closes the connection."""
        with _as_failures():
            response = await self.http.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                ssl=self.trust or True,
            )
            try:
                yield response
            finally:
                response.close()

    async def fetched(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | dict[str, str] | None
    ) -> dict[str, Any]:
        """The JSON object that answers a small request of our own, such as for a token.

        Raises:
            ProviderFailure: If it does not come.
        """
        data = orjson.dumps(body) if isinstance(body, dict) else body
        # Under nobody's deadline: others wait for the same token, and would share the failure.
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        async with self.requested(method, url, headers, data, timeout) as response:
            if response.status != 200:
                raise _refused_us(http_failure(response.status, response.headers, b"", None))
            return decoded(await _read(response, LARGEST_ERROR_BYTES))


class Endpoint:
    """One HTTP API, called with our credential and under a deployment's time limits."""

    def __init__(
        self,
        base_url: str,
        destination: Destination,
        wire: Wire,
        credential: Credential,
        headers: Mapping[str, str],
        limits: TimeLimits,
        pace_seconds: float = 0.0,
    ) -> None:
        self._base_url = base_url
        self._destination = destination
        self._wire = wire
        self._credential = credential
        self._limits = limits
        self._pace_seconds = pace_seconds
        self._refused = False
        """Whether the last health check was, new token and all: the next spares the others theirs."""
        # Compressed answers would arrive in blocks, not in tokens.
        self._headers = {**headers, "content-type": "application/json", "accept-encoding": "identity"}

    def at(self, base_url: str) -> Endpoint:
        """The same access to another version of the API."""
        other = copy.copy(self)
        other._base_url = base_url
        return other

    async def stream(
        self, path: str, body: bytes, prompt: chat_pb2.ChatPrompt, reader: AnswerReader, cargo: Cargo
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Post a prompt and read the answer as it comes; closing hangs up.

        After a piece what follows is left to gather for a while: each piece costs every hop some 100 µs of CPU, and
        bytes that nobody is waiting for cost next to nothing.
        """
        last: chat_pb2.Delta | None = None
        async with self._posted(path, body, prompt, cargo) as response:
            reader.expect(response.content_type)
            whole = asyncio.Event()
            response.content.on_eof(whole.set)
            with _forgiven(reader):
                async with aclosing(_received(response, reader, self._figures_seconds())) as pieces:
                    async for received in pieces:
                        for delta in reader.feed(received):
                            if reader.done:
                                last = delta
                                continue
                            yield delta
                            if self._pace_seconds and not reader.finished:
                                await _gathered(whole, self._pace_seconds)
        yield reader.ended(last)

    async def answer(self, path: str, body: bytes, cargo: Cargo) -> dict[str, Any]:
        """Post something and read the JSON object that answers it."""
        async with self._posted(path, body, None, cargo) as response:
            return decoded(await _read(response, LARGEST_BODY_BYTES))

    async def condition(self, path: str) -> Condition:
        """What a GET of `path` below the base URL says, within two seconds; READY without a path."""
        return await self.condition_at(self._base_url + path) if path else Condition(Health.READY)

    async def condition_at(self, url: str) -> Condition:
        """What a GET of `url` says, within two seconds."""
        try:
            async with asyncio.timeout(time_left(at_most=HEALTH_SECONDS)):
                status = await self._status(url)
        except TimeoutError:
            return Condition(Health.UNAVAILABLE, "asked how it is, it kept silent")
        except ProviderFailure as failure:
            return Condition(Health.UNAVAILABLE, f"it could not be asked how it is: {failure.kind}")
        if status == 200:
            return Condition(Health.READY)
        return Condition(Health.UNAVAILABLE, f"asked how it is, it answered {status}")

    async def _status(self, url: str) -> int:
        """What a GET answers; asked once more when our token is newly refused and another can be had."""
        authorization = await self._credential.authorization()
        status = await self._got(url, authorization)
        if status == UNAUTHORIZED and not self._refused and await self._credential.renew(authorization):
            status = await self._got(url, await self._credential.authorization())
        self._refused = status == UNAUTHORIZED
        return status

    async def _got(self, url: str, authorization: str) -> int:
        headers = {**self._headers, "authorization": authorization} if authorization else self._headers
        async with self._wire.requested("GET", url, headers, None, aiohttp.ClientTimeout()) as response:
            return response.status

    def _figures_seconds(self) -> float:
        """Shorter than the silence that would count as a broken stream."""
        return min(FIGURES_SECONDS, self._limits.idle_chunk_seconds / 2)

    @asynccontextmanager
    async def _posted(
        self, path: str, body: bytes, prompt: chat_pb2.ChatPrompt | None, cargo: Cargo
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The good response to a POST; asked once more when our token was refused but another can be had.

        Raises:
            EgressRefused: If what is posted may not go there: then nothing was sent.
        """
        self._destination.admit(cargo, self._base_url + path)
        current_dispatch().held = True
        authorization = await self._credential.authorization()
        async with self._requested(path, body, authorization) as response:
            if response.status != UNAUTHORIZED or not await self._credential.renew(authorization):
                await _require_good(response, prompt)
                yield response
                return
        async with self._requested(path, body, await self._credential.authorization()) as response:
            await _require_good(response, prompt)
            yield response

    def _requested(
        self, path: str, body: bytes, authorization: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        limits = self._limits
        timeout = aiohttp.ClientTimeout(total=time_left(at_most=limits.answer_seconds), connect=limits.connect_seconds)
        headers = {**self._headers, "authorization": authorization} if authorization else self._headers
        return self._wire.requested("POST", self._base_url + path, headers, body, timeout)


def _refused_us(failure: ProviderFailure) -> ProviderFailure:
    """The failure of a request of our own: the caller's is not at fault in it."""
    if failure.kind.is_of_the_request:
        failure.kind = FailureKind.CREDENTIAL
    return failure


async def _require_good(response: aiohttp.ClientResponse, prompt: chat_pb2.ChatPrompt | None) -> None:
    if response.status != 200:
        raise http_failure(response.status, response.headers, await _error_body(response), prompt)


async def _received(
    response: aiohttp.ClientResponse, reader: AnswerReader, figures_seconds: float
) -> AsyncGenerator[bytes, None]:
    """The body as it arrives, up to [DONE]; or to its end, which is told as no bytes.

    Once the answer is whole, only its figures are missing: they are waited for no longer than `figures_seconds`.
    """
    while True:
        if reader.finished:
            async with asyncio.timeout(figures_seconds):
                received = await response.content.readany()
        else:
            received = await response.content.readany()
        yield received
        if reader.done:
            await _read_tail(response)
        if reader.done or not received:
            return


async def _gathered(whole: asyncio.Event, seconds: float) -> None:
    """Let more arrive, but wait no longer once everything has."""
    if whole.is_set():
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await whole.wait()


async def _read_tail(response: aiohttp.ClientResponse) -> None:
    if response.content.at_eof():
        return
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(TAIL_SECONDS):
            async for _ in response.content.iter_any():
                pass


async def _error_body(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of what the provider says about its failure; empty when even that fails."""
    try:
        async with asyncio.timeout(ERROR_SECONDS):
            return await _read(response, LARGEST_ERROR_BYTES)
    except (TimeoutError, aiohttp.ClientError):
        return b""


async def _read(response: aiohttp.ClientResponse, at_least: int) -> bytes:
    """The body, or its beginning: reading stops once `at_least` bytes are there."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= at_least:
            break
    return bytes(body)


@contextmanager
def _forgiven(reader: AnswerReader) -> Iterator[None]:
    """Let a stream break once the answer is whole: only its figures may be missing."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ProviderFailure):
        if not reader.finished:
            raise


@contextmanager
def _as_failures() -> Iterator[None]:
    """Name every way the connection can fail."""
    try:
        yield
    except TimeoutError as error:
        raise ProviderFailure(FailureKind.TIMEOUT, f"took too long: {type(error).__name__}") from None
    except aiohttp.ClientError as error:
        raise ProviderFailure(FailureKind.UNAVAILABLE, f"connection failed: {type(error).__name__}") from None
