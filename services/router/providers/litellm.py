"""The providers LiteLLM knows, through LiteLLM as a library; importing this module imports LiteLLM.

Only where it is configured: it takes seconds to import and brings its own HTTP clients.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

# Read while it is imported or later: its own price list, no .env file of the surroundings, certificates checked.
os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_MODE="PRODUCTION", SSL_VERIFY="True")

import litellm
import orjson

from llmmesh.chat.v1 import chat_pb2
from meshkit.deadline import time_left
from meshkit.egress import Cargo
from services.router.endpoints import LiteLLMDeployment
from services.router.pacing import coalesced
from services.router.providers.answer_reader import AnswerReader, embedded
from services.router.providers.batches import embedded_in_batches
from services.router.providers.error_reply import http_failure
from services.router.providers.json_lines import LineParser
from services.router.providers.openai_request import chat_fields
from services.router.providers.profiles import Profile
from services.router.providers.provider import (
    AnswerEvent,
    Condition,
    Embedded,
    FailureKind,
    Health,
    ProviderFailure,
    unsupported,
)

litellm.telemetry = False
litellm.suppress_debug_info = True
litellm.turn_off_message_logging = True
# Turned on it would also send a refused request again, without telling.
litellm.drop_params = False

PASSED = frozenset(
    {
        "messages",
        "model",
        "stream",
        "stop",
        "temperature",
        "top_p",
        "max_tokens",
        "seed",
        "user",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "response_format",
        "reasoning_effort",
        "verbosity",
        "modalities",
        "audio",
        "prediction",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
    }
)
"""Fields of OpenAI's chat API. To LiteLLM they are arguments, and others say where it calls, and as whom."""
CLOSE_SECONDS = 1.0
TEXTS_PER_REQUEST = 100

_KINDS: dict[type[Exception], FailureKind] = {
    litellm.exceptions.ContextWindowExceededError: FailureKind.TOO_LONG,
    litellm.exceptions.UnsupportedParamsError: FailureKind.NOT_FOUND,
    litellm.exceptions.Timeout: FailureKind.TIMEOUT,
    litellm.exceptions.APIConnectionError: FailureKind.UNAVAILABLE,
}


class LiteLLMProvider:
    """One model behind LiteLLM."""

    def __init__(
        self, deployment: LiteLLMDeployment, credential: str, headers: Mapping[str, str], pace_seconds: float
    ) -> None:
        self._deployment = deployment
        self._destination = deployment.destination
        self._pace_seconds = pace_seconds
        self._given: dict[str, Any] = {"extra_headers": dict(headers)} if headers else {}
        if credential:
            self._given["api_key"] = credential
        if deployment.base_url:
            self._given["api_base"] = deployment.base_url

    def stream_chat(self, prompt: chat_pb2.ChatPrompt, cargo: Cargo) -> AsyncGenerator[AnswerEvent, None]:
        """Answer as the model speaks; closing hangs up."""
        return coalesced(self._events(prompt, cargo), self._pace_seconds)

    async def _events(self, prompt: chat_pb2.ChatPrompt, cargo: Cargo) -> AsyncGenerator[AnswerEvent, None]:
        self._destination.admit(cargo, self._deployment.base_url)
        reader, silent = AnswerReader(LineParser()), True
        with _as_failures(reader):
            chunks = await litellm.acompletion(**self._chat(prompt), **self._common())
            try:
                async for chunk in chunks:
                    for delta in reader.feed(_json(chunk) + b"\n"):
                        silent = False
                        yield delta
            finally:
                await _closed(chunks)
        ended = reader.ended()
        # A stream that never began, such as a web page, is given a good end by LiteLLM.
        if silent and ended.finish_reason == chat_pb2.FINISH_REASON_STOP:
            raise ProviderFailure(FailureKind.MALFORMED, "LiteLLM read no answer")
        yield ended

    async def embed(self, texts: Sequence[str], cargo: Cargo) -> Embedded:
        """Embed texts, a hundred at a time."""
        self._destination.admit(cargo, self._deployment.base_url)
        return await embedded_in_batches(texts, TEXTS_PER_REQUEST, self._embed)

    async def condition(self) -> Condition:
        """Say that it can be called: only calls, which cost money, would tell otherwise."""
        return Condition(Health.READY)

    async def _embed(self, texts: Sequence[str]) -> Embedded:
        with _as_failures(None):
            answer = await litellm.aembedding(
                model=self._deployment.model, input=list(texts), encoding_format="float", **self._common()
            )
            return embedded(orjson.loads(_json(answer)), len(texts))

    def _chat(self, prompt: chat_pb2.ChatPrompt) -> dict[str, Any]:
        fields = orjson.loads(orjson.dumps(chat_fields(prompt, Profile(), "max_tokens")))
        if others := sorted(fields.keys() - PASSED):
            raise unsupported(f"{', '.join(others)} through LiteLLM")
        return {**fields, "model": self._deployment.model, "stream_options": {"include_usage": True}}

    def _common(self) -> dict[str, Any]:
        seconds = time_left(at_most=self._deployment.timeouts.answer_seconds)
        return {**self._given, "timeout": seconds, "num_retries": 0, "max_retries": 0, "caching": False}


def _json(said: Any) -> bytes:
    """What LiteLLM made of a chunk or an answer; its models do not always hold what they declare."""
    return bytes(said.model_dump_json(exclude_none=True, warnings=False).encode())


async def _closed(chunks: Any) -> None:
    """Hang up, even when we were cancelled: what is left open would go on costing money."""
    close = getattr(chunks, "aclose", None)
    if close is None:
        return
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await close()
    except Exception:  # noqa: BLE001 - whatever a half-read stream says, it is closed
        return


@contextmanager
def _as_failures(reader: AnswerReader | None) -> Iterator[None]:
    """Name whatever LiteLLM raises; what breaks after a whole answer is let pass."""
    try:
        yield
    except ProviderFailure:
        raise
    except Exception as error:  # noqa: BLE001 - each provider behind it raises types of its own
        if reader is None or not reader.finished:
            raise _failure(error) from None


def _failure(error: Exception) -> ProviderFailure:
    """What an error of LiteLLM means; its text, which may quote anything, is not kept."""
    status = getattr(error, "status_code", None)
    response = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    failure = http_failure(status if isinstance(status, int) else 500, headers, b"", None)
    kind = next((kind for raised, kind in _KINDS.items() if isinstance(error, raised)), failure.kind)
    return ProviderFailure(
        kind,
        f"LiteLLM raised {type(error).__name__}",
        status=failure.status,
        retry_after_seconds=failure.retry_after_seconds,
    )
