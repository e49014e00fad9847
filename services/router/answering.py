"""One prompt asked of one deployment after the other, and what comes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llmmesh.chat.v1 import chat_pb2
from meshkit.usage import all_output_tokens
from services.router.constraints import Limits
from services.router.deployment import Deployment
from services.router.egress import Egress
from services.router.pacing import TimedStream
from services.router.providers.provider import AnswerEvent, Embedded, Ended, FailureKind, ProviderFailure
from services.router.tokens import prompt_tokens, size_tokens, text_tokens


@dataclass(frozen=True, slots=True)
class OpenAnswer:
    """An answer whose first token, or end, has arrived."""

    stream: TimedStream
    first: AnswerEvent

    async def aclose(self) -> None:
        """Close the provider's connection."""
        await self.stream.aclose()


class ChatAttempts:
    """Puts one prompt to deployments, sometimes to two at once."""

    def __init__(self, egress: Egress, prompt: chat_pb2.ChatPrompt, limits: Limits) -> None:
        self._egress = egress
        self._prompt = prompt
        self._limits = limits
        self._waiting = 0
        self._since = 0.0
        self.waited_seconds = 0.0
        """Time in which at least one of them was waited for, up to its first token or failure."""

    async def open(self, deployment: Deployment) -> OpenAnswer:
        """Ask `deployment` and wait for its first token; nothing stays open when that fails.

        Raises:
            ProviderFailure: If it gives none in time.
        """
        events = self._egress.stream_chat(deployment, self._prompt, self._limits)
        stream = TimedStream(events, deployment.timeouts)
        try:
            with self._waited():
                return OpenAnswer(stream, await stream.first())
        except BaseException:
            await stream.aclose()
            raise

    @contextmanager
    def _waited(self) -> Iterator[None]:
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.waited_seconds += time.monotonic() - self._since


class EmbeddingAttempts:
    """Puts texts to deployments."""

    def __init__(self, egress: Egress, texts: Sequence[str], limits: Limits) -> None:
        self._egress = egress
        self._texts = texts
        self._limits = limits

    async def embed(self, deployment: Deployment) -> Embedded:
        """Embed with `deployment`.

        Raises:
            ProviderFailure: If it gives no vectors in time.
        """
        seconds = deployment.timeouts.first_token_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._egress.embed(deployment, self._texts, self._limits)
        except TimeoutError:
            raise ProviderFailure(FailureKind.TIMEOUT, f"no vectors for {seconds:.3g} s") from None


def estimated_chat_usage(prompt: chat_pb2.ChatPrompt, said_bytes: int) -> chat_pb2.TokenUsage:
    """What an answer of so many bytes used, when the provider does not say."""
    return chat_pb2.TokenUsage(
        input_tokens=prompt_tokens(prompt), output_tokens=size_tokens(said_bytes), estimated=True
    )


def estimated_embedding_usage(texts: Sequence[str]) -> chat_pb2.TokenUsage:
    """What embedding used, when the provider does not say."""
    return chat_pb2.TokenUsage(input_tokens=sum(map(text_tokens, texts)), estimated=True)


def generated_tokens(ended: Ended) -> int:
    """How many tokens the model made, as far as the provider says."""
    return all_output_tokens(ended.usage) if ended.usage else 0
