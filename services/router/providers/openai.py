"""Any endpoint that speaks OpenAI's HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import aiohttp

from llmmesh.chat.v1 import chat_pb2
from meshkit.deadline import time_left
from services.router.deployment import OpenAIDeployment
from services.router.providers.openai_answer import AnswerReader, decoded, embedded
from services.router.providers.openai_error import http_failure
from services.router.providers.openai_request import chat_body, embeddings_body
from services.router.providers.provider import (
    AnswerEvent,
    Condition,
    Embedded,
    FailureKind,
    Health,
    ProviderFailure,
)

LARGEST_BODY_BYTES = 128 * 1024 * 1024
LARGEST_ERROR_BYTES = 64 * 1024
ERROR_SECONDS = 5.0
FIGURES_SECONDS = 2.0
"""Longest wait for the token counts that follow an answer."""
TAIL_SECONDS = 0.05
"""Longest wait for the end of a stream after [DONE]: a connection read to its end can be used again."""

NOT_A_STREAM = frozenset({"application/json", "text/html", "application/xml", "text/xml"})


class OpenAIProvider:
    """One deployment behind an OpenAI-compatible endpoint."""

    def __init__(
        self, deployment: OpenAIDeployment, http: aiohttp.ClientSession, credential: str, headers: Mapping[str, str]
    ) -> None:
        self._deployment = deployment
        self._http = http
        # Compressed answers would arrive in blocks, not in tokens.
        self._headers = {**headers, "content-type": "application/json", "accept-encoding": "identity"}
        if credential:
            self._headers["authorization"] = f"Bearer {credential}"

    async def stream_chat(self, prompt: chat_pb2.ChatPrompt) -> AsyncGenerator[AnswerEvent, None]:
        """Answer as the model speaks; closing hangs up."""
        body = chat_body(prompt, self._deployment)
        reader = AnswerReader()
        async with self._posted("/chat/completions", body, prompt) as response:
            _require_stream(response)
            with _forgiven(reader):
                async for received in _received(response, reader, self._figures_seconds()):
                    for delta in reader.feed(received):
                        yield delta
            yield reader.ended()

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed texts in one request."""
        async with self._posted("/embeddings", embeddings_body(texts, self._deployment), None) as response:
            return embedded(decoded(await _read(response, LARGEST_BODY_BYTES)), len(texts))

    async def condition(self) -> Condition:
        """Say that it can be called: only calls, which cost money, would tell otherwise."""
        return Condition(Health.READY)

    def _figures_seconds(self) -> float:
        """Shorter than the silence that would count as a broken stream."""
        return min(FIGURES_SECONDS, self._deployment.timeouts.idle_chunk_seconds / 2)

    @asynccontextmanager
    async def _posted(
        self, path: str, body: bytes, prompt: chat_pb2.ChatPrompt | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The good response to a POST; leaving the block before its end closes the connection."""
        limits = self._deployment.timeouts
        timeout = aiohttp.ClientTimeout(total=time_left(at_most=limits.answer_seconds), connect=limits.connect_seconds)
        url = self._deployment.base_url + path
        with _as_failures():
            response = await self._http.post(
                url, data=body, headers=self._headers, timeout=timeout, allow_redirects=False
            )
            try:
                if response.status != 200:
                    raise http_failure(response.status, response.headers, await _error_body(response), prompt)
                yield response
            finally:
                response.close()


def _require_stream(response: aiohttp.ClientResponse) -> None:
    if response.content_type in NOT_A_STREAM:
        raise ProviderFailure(FailureKind.MALFORMED, f"answered with {response.content_type}, not an event stream")


async def _received(
    response: aiohttp.ClientResponse, reader: AnswerReader, figures_seconds: float
) -> AsyncIterator[bytes]:
    """The body as it arrives, up to [DONE]; or to its end, which is told as no bytes.

    Once the answer is whole, only its figures are missing: they are waited for no longer than `figures_seconds`.
    """
    while True:
        async with asyncio.timeout(figures_seconds if reader.finished else None):
            received = await response.content.readany()
        yield received
        if reader.done:
            await _read_tail(response)
        if reader.done or not received:
            return


async def _read_tail(response: aiohttp.ClientResponse) -> None:
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
