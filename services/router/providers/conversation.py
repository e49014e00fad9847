"""A conversation for providers that know neither OpenAI's roles nor several tool calls in one turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from llmmesh.chat.v1 import chat_pb2
from services.router.providers.provider import FailureKind, ProviderFailure, unsupported

INSTRUCTING = frozenset({chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_DEVELOPER})


@dataclass(frozen=True, slots=True)
class Spoken:
    """Somebody's words."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A tool call and what came of it."""

    call: chat_pb2.ToolCall
    result: str | None
    """None while nobody has answered it."""
    said: str
    """What the assistant said before the call."""


def instructions(messages: Sequence[chat_pb2.ChatMessage]) -> str:
    """Everything the application instructs, wherever it stands: it keeps its rank above what users say."""
    return "\n\n".join(text_of(message) for message in messages if message.role in INSTRUCTING)


def exchanges(messages: Sequence[chat_pb2.ChatMessage]) -> Iterator[Spoken | Exchange]:
    """The turns after the instructions: words, and tool calls each with its result.

    Raises:
        ProviderFailure: If a result answers no call before it.
    """
    results = _results(messages)
    for place, message in enumerate(messages):
        match message.role:
            case chat_pb2.ROLE_USER:
                yield Spoken("user", text_of(message))
            case chat_pb2.ROLE_ASSISTANT if message.tool_calls:
                said = text_of(message)
                for call in message.tool_calls:
                    yield Exchange(call, results.get((place, call.id)), said)
                    said = ""
            case chat_pb2.ROLE_ASSISTANT:
                yield Spoken("assistant", text_of(message))


def _results(messages: Sequence[chat_pb2.ChatMessage]) -> dict[tuple[int, str], str]:
    """What came of each call, by the place of its message and its id: ids may come again in a later turn."""
    called: dict[str, int] = {}
    results: dict[tuple[int, str], str] = {}
    for place, message in enumerate(messages):
        called.update((call.id, place) for call in message.tool_calls)
        if message.role != chat_pb2.ROLE_TOOL:
            continue
        if message.tool_call_id not in called:
            public = "tool_call_id answers no call before it"
            raise ProviderFailure(FailureKind.REFUSED, "a tool result without its call", public=public)
        results[called[message.tool_call_id], message.tool_call_id] = text_of(message)
    return results


def text_of(message: chat_pb2.ChatMessage) -> str:
    """The text of a message.

    Raises:
        ProviderFailure: If there is more in it than text.
    """
    for part in message.content:
        if part.WhichOneof("part") != "text":
            raise unsupported("content other than text")
    return "".join(part.text for part in message.content)


def json_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object as it is; anything else as the member `name` of one, because only objects are taken."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = text
    return value if isinstance(value, dict) else {name: value}
