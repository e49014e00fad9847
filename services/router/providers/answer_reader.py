"""Streams of chunks, figures and vectors, read into the mesh's words. Other shapes are put in OpenAI's first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import orjson

from llmmesh.chat.v1 import chat_pb2
from services.router.deltas import append, says_something
from services.router.providers.error_reply import embedded_failure
from services.router.providers.json_lines import LineParser
from services.router.providers.provider import Embedded, Ended, FailureKind, ProviderFailure
from services.router.providers.sse import EventParser, EventTooLarge

Chunk: TypeAlias = dict[str, Any]

DONE = b"[DONE]"
LARGEST_COUNT = 2**30
"""Two of them still fit the 32 bits of a token count."""

FINISH_REASONS = {
    "stop": chat_pb2.FINISH_REASON_STOP,
    "stop_sequence": chat_pb2.FINISH_REASON_STOP,
    "eos": chat_pb2.FINISH_REASON_STOP,
    "eos_token": chat_pb2.FINISH_REASON_STOP,
    "end_turn": chat_pb2.FINISH_REASON_STOP,
    "endoftext": chat_pb2.FINISH_REASON_STOP,
    "complete": chat_pb2.FINISH_REASON_STOP,
    "tool_calls": chat_pb2.FINISH_REASON_TOOL_CALLS,
    "tool_use": chat_pb2.FINISH_REASON_TOOL_CALLS,
    "function_call": chat_pb2.FINISH_REASON_TOOL_CALLS,
    "content_filter": chat_pb2.FINISH_REASON_CONTENT_FILTER,
    "safety": chat_pb2.FINISH_REASON_CONTENT_FILTER,
    "sensitive": chat_pb2.FINISH_REASON_CONTENT_FILTER,
}
"""In small letters. Any other end counts as `length`: nobody knows that such an answer is whole."""
GAVE_UP = frozenset({"error", "abort", "insufficient_system_resource", "network_error"})
"""Ends of answers that are not whole; vLLM says `abort` of requests that its engine dropped, DeepSeek and Zhipu say the
last two."""


class AnswerReader:
    """Reads one stream, `as_openai` chunk by chunk; remembers how the answer ended and what it used."""

    def __init__(
        self, events: EventParser | LineParser | None = None, as_openai: Callable[[Chunk], Chunk] | None = None
    ) -> None:
        self._events = events or EventParser()
        self._as_openai = as_openai
        self.finish_reason: chat_pb2.FinishReason.ValueType = chat_pb2.FINISH_REASON_UNSPECIFIED
        self.done = False
        self._usage: chat_pb2.TokenUsage | None = None
        self._opened_calls: set[int] = set()

    @property
    def finished(self) -> bool:
        """Whether the answer is whole: the provider said why it ended, or that nothing more comes."""
        return self.done or self.finish_reason != chat_pb2.FINISH_REASON_UNSPECIFIED

    def expect(self, content_type: str) -> None:
        """Check that a body of `content_type` can be a stream.

        Raises:
            ProviderFailure: If it is something else, such as a page of a proxy.
        """
        if content_type in self._events.foreign_types:
            raise ProviderFailure(FailureKind.MALFORMED, f"answered with {content_type}, not a stream")

    def feed(self, received: bytes) -> Iterator[chat_pb2.Delta]:
        """What the answer says in the bytes received, as one piece if anything; no bytes are the end of the stream.

        Raises:
            ProviderFailure: After what was said before it, if the provider sends an error inside the stream, or
                something that is no chunk.
        """
        said = chat_pb2.Delta()
        failure = self._take(received, said)
        if says_something(said):
            yield said
        if failure:
            raise failure

    def ended(self, last: chat_pb2.Delta | None = None) -> Ended:
        """How the answer ended, with the `last` it said.

        Raises:
            ProviderFailure: If the stream stopped before the provider said so.
        """
        if not self.finished:
            raise ProviderFailure(FailureKind.UNAVAILABLE, "the stream ended without a finish_reason")
        return Ended(self.finish_reason or chat_pb2.FINISH_REASON_STOP, self._usage, last)

    def _take(self, received: bytes, said: chat_pb2.Delta) -> ProviderFailure | None:
        try:
            for payload in self._events.feed(received) if received else self._events.close():
                self._read(payload, said)
        except ProviderFailure as failure:
            return failure
        except EventTooLarge as fault:
            return ProviderFailure(FailureKind.MALFORMED, str(fault))
        return None

    def _read(self, payload: bytes, said: chat_pb2.Delta) -> None:
        """Add what one event says to `said`."""
        if payload.strip() == DONE:
            self.done = True
        if self.done:
            return
        try:
            self._read_chunk(decoded(payload), said)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ProviderFailure(FailureKind.MALFORMED, "sent a chunk of another shape than its protocol's") from None

    def _read_chunk(self, chunk: Chunk, said: chat_pb2.Delta) -> None:
        if self._as_openai:
            chunk = self._as_openai(chunk)
        if error := chunk.get("error"):
            raise embedded_failure(error)
        if (figures := chunk.get("usage")) and (usage := token_usage(figures)):
            self._usage = usage
        self._read_choice(chunk, said)

    def _read_choice(self, chunk: dict[str, Any], said: chat_pb2.Delta) -> None:
        choice = _first_choice(chunk)
        if choice is None:
            return
        word = (choice.get("finish_reason") or "").lower()
        if word in GAVE_UP:
            raise ProviderFailure(FailureKind.UNAVAILABLE, f"gave up: finish_reason {word!r}")
        if word:
            self.finish_reason = FINISH_REASONS.get(word, chat_pb2.FINISH_REASON_LENGTH)
        if delta := choice.get("delta"):
            self._add(delta, said)

    def _add(self, delta: dict[str, Any], said: chat_pb2.Delta) -> None:
        """Add a piece in OpenAI's words; each message made on the way would cost more than all the rest."""
        if text := _first_text(delta, "content", "refusal"):
            said.text += text
        if reasoning := _first_text(delta, "reasoning_content", "reasoning"):
            said.reasoning += reasoning
        if calls := delta.get("tool_calls"):
            append(said, chat_pb2.Delta(tool_calls=self._tool_calls(calls)))

    def _tool_calls(self, calls: Sequence[dict[str, Any]]) -> Iterator[chat_pb2.ToolCallDelta]:
        for position, call in enumerate(calls):
            index = call.get("index")
            index = index if isinstance(index, int) else position
            function = call.get("function") or {}
            piece = chat_pb2.ToolCallDelta(index=index, arguments=_arguments(function.get("arguments")))
            # Some providers repeat both on every piece.
            if index not in self._opened_calls:
                self._opened_calls.add(index)
                piece.id, piece.name = _text(call.get("id")), _text(function.get("name"))
            yield piece


def decoded(payload: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ProviderFailure: If it is not one.
    """
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ProviderFailure(FailureKind.MALFORMED, f"sent {len(payload)} bytes that are no JSON object")
    return value


def embedded(answer: dict[str, Any], count: int) -> Embedded:
    """The vectors of an embeddings answer, in the order of the texts.

    Raises:
        ProviderFailure: If there are not `count` vectors of one length.
    """
    try:
        rows = sorted(answer["data"], key=lambda row: row["index"])
        vectors = [[float(value) for value in row["embedding"]] for row in rows]
    except (KeyError, TypeError, ValueError):
        vectors = []
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != count or len(lengths) != 1 or 0 in lengths:
        raise ProviderFailure(FailureKind.MALFORMED, f"sent no {count} vectors of one length")
    return Embedded(vectors, token_usage(answer.get("usage")))


def token_usage(usage: Any) -> chat_pb2.TokenUsage | None:
    """OpenAI's overlapping figures in disjoint buckets whose sum is the provider's total; None without figures."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt + completion == 0:
        return None
    prompt_details, completion_details = _details(usage, "prompt"), _details(usage, "completion")
    cached = min(_count(prompt_details, "cached_tokens"), prompt)
    written = min(_count(prompt_details, "cache_creation_input_tokens"), prompt - cached)
    reasoning = min(_count(completion_details, "reasoning_tokens"), completion)
    # Some endpoints count reasoning into the total alone.
    beside = max(0, _count(usage, "total_tokens") - prompt - completion)
    return chat_pb2.TokenUsage(
        input_tokens=prompt - cached - written,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=completion - reasoning,
        reasoning_tokens=reasoning + beside,
    )


def _details(usage: dict[str, Any], side: str) -> dict[str, Any]:
    details = usage.get(f"{side}_tokens_details")
    return details if isinstance(details, dict) else {}


def _count(figures: dict[str, Any], name: str) -> int:
    value = figures.get(name)
    return min(max(0, int(value)), LARGEST_COUNT) if isinstance(value, int | float) else 0


def _first_choice(chunk: dict[str, Any]) -> dict[str, Any] | None:
    for choice in chunk.get("choices") or ():
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return None


def _first_text(delta: dict[str, Any], *names: str) -> str:
    for name in names:
        value = delta.get(name)
        if value and isinstance(value, str):
            return value
    return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    return orjson.dumps(value).decode() if isinstance(value, dict) else _text(value)
