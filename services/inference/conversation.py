"""The conversation as a chat template wants it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid

Turn = dict[str, Any]
"""One message under the names chat templates use: role, content and, where set, name and tool calls."""

ROLES = {
    chat_pb2.ROLE_SYSTEM: "system",
    chat_pb2.ROLE_DEVELOPER: "system",  # templates know the older word only
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}


def turns_of(messages: Sequence[chat_pb2.ChatMessage]) -> list[Turn]:
    """Read the messages.

    Raises:
        FieldInvalid: If there are none, or one has no role or holds anything but text.
    """
    if not messages:
        raise FieldInvalid("messages", "must hold at least one message")
    return [turn_of(message, f"messages[{index}]") for index, message in enumerate(messages)]


def turn_of(message: chat_pb2.ChatMessage, field: str) -> Turn:
    """Read one message; `field` is its name in errors."""
    role = ROLES.get(message.role)
    if role is None:
        raise FieldInvalid(f"{field}.role", "must be system, developer, user, assistant or tool")
    turn: Turn = {"role": role, "content": text_of(message, field)}
    if message.name:
        turn["name"] = message.name
    if message.tool_calls:
        turn["tool_calls"] = [tool_call_of(call, field) for call in message.tool_calls]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def text_of(message: chat_pb2.ChatMessage, field: str) -> str:
    """The text of a message, its parts on lines of their own."""
    if any(part.WhichOneof("part") != "text" for part in message.content):
        raise FieldInvalid(f"{field}.content", "must be text; this model reads nothing else")
    return "\n".join(part.text for part in message.content)


def tool_call_of(call: chat_pb2.ToolCall, field: str) -> dict[str, Any]:
    """A tool call the assistant made in an earlier turn; templates want its arguments as an object."""
    try:
        arguments = orjson.loads(call.arguments or "{}")
    except ValueError:
        raise FieldInvalid(f"{field}.tool_calls", "arguments must be valid JSON") from None
    if not isinstance(arguments, dict | None):
        raise FieldInvalid(f"{field}.tool_calls", "arguments must be a JSON object")
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments or {}}}
