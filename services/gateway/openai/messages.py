"""OpenAI's messages as the mesh's own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid
from services.gateway.openai.members import LONGEST_NAME, decoded
from services.gateway.validation import MOST_PIECES

ROLES = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_DEVELOPER,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}


class WireFunction(msgspec.Struct):
    """What a tool call calls."""

    name: str
    arguments: str = ""


class WireToolCall(msgspec.Struct):
    """A tool call of an earlier turn."""

    id: str
    function: WireFunction


class WireMessage(msgspec.Struct):
    """One turn as OpenAI writes it; members not named here are ignored."""

    role: str
    content: str | list[msgspec.Raw] | None = None
    name: str | None = None
    tool_calls: list[WireToolCall] | None = None
    tool_call_id: str | None = None


class WireImage(msgspec.Struct):
    """Where an image is."""

    url: str
    detail: str | None = None


class WirePart(msgspec.Struct):
    """One piece of a message."""

    type: str
    text: str | None = None
    image_url: WireImage | None = None


messages_decoder = msgspec.json.Decoder(list[WireMessage])
_part = msgspec.json.Decoder(WirePart)


def chat_messages(wire: Sequence[WireMessage]) -> list[chat_pb2.ChatMessage]:
    """The same conversation. Raises FieldInvalid."""
    if len(wire) + sum(map(_size, wire)) > MOST_PIECES:
        raise FieldInvalid("messages", f"must hold at most {MOST_PIECES} messages, parts and tool calls together")
    return [_chat_message(message, f"messages[{index}]") for index, message in enumerate(wire)]


def _size(wire: WireMessage) -> int:
    parts = len(wire.content) if isinstance(wire.content, list) else 0
    return parts + len(wire.tool_calls or ())


def _chat_message(wire: WireMessage, field: str) -> chat_pb2.ChatMessage:
    role = ROLES.get(wire.role)
    if role is None:
        raise FieldInvalid(f"{field}.role", f"{wire.role[:LONGEST_NAME]!r} is no role: use {', '.join(ROLES)}")
    return chat_pb2.ChatMessage(
        role=role,
        content=_content(wire.content, f"{field}.content"),
        name=wire.name or "",
        tool_calls=[_tool_call(call) for call in wire.tool_calls or ()],
        tool_call_id=wire.tool_call_id or "",
    )


def _content(wire: str | list[msgspec.Raw] | None, field: str) -> list[chat_pb2.ContentPart]:
    if isinstance(wire, str):
        return [chat_pb2.ContentPart(text=wire)]
    return [_content_part(raw, f"{field}[{index}]") for index, raw in enumerate(wire or ())]


def _content_part(raw: msgspec.Raw, field: str) -> chat_pb2.ContentPart:
    """Text and images by their fields, any other kind as it came."""
    part = decoded(raw, _part, field)
    if part.type == "text":
        if part.text is None:
            raise FieldInvalid(f"{field}.text", "must not be missing")
        return chat_pb2.ContentPart(text=part.text)
    if part.type == "image_url":
        return chat_pb2.ContentPart(image_url=_image(part.image_url, f"{field}.image_url"))
    try:
        return chat_pb2.ContentPart(raw_json=bytes(raw).decode())
    except UnicodeDecodeError as error:
        raise FieldInvalid(field, "must be UTF-8") from error


def _image(wire: WireImage | None, field: str) -> chat_pb2.ImageUrl:
    if wire is None:
        raise FieldInvalid(f"{field}.url", "must not be missing")
    return chat_pb2.ImageUrl(url=wire.url, detail=wire.detail or "")


def _tool_call(wire: WireToolCall) -> chat_pb2.ToolCall:
    return chat_pb2.ToolCall(id=wire.id, name=wire.function.name, arguments=wire.function.arguments)
