"""A prompt as OpenAI's JSON; what came as JSON is spliced in byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import orjson

from llmmesh.chat.v1 import chat_pb2
from services.router.deployment import OpenAIDeployment

ROLES = {
    chat_pb2.ROLE_SYSTEM: "system",
    # OpenAI reads both words the same, other endpoints know only the older.
    chat_pb2.ROLE_DEVELOPER: "system",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}

OURS = frozenset({"model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"})
"""Fields the caller's extras may not set: they would change who answers, what is billed, or how it is read."""

_Sampling = Literal["temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"]
SAMPLING: tuple[_Sampling, ...] = get_args(_Sampling)


def chat_body(prompt: chat_pb2.ChatPrompt, deployment: OpenAIDeployment) -> bytes:
    """The body of a streaming chat completion."""
    body: dict[str, Any] = {
        name: orjson.Fragment(text) for name, text in prompt.options.extra_json.items() if name not in OURS
    }
    body["model"] = deployment.model
    body["messages"] = [_message(message) for message in prompt.messages]
    body["stream"] = True
    if deployment.include_usage:
        body["stream_options"] = {"include_usage": True}
    body.update(_options(prompt.options, deployment.max_tokens_field))
    return orjson.dumps(body)


def embeddings_body(texts: Sequence[str], deployment: OpenAIDeployment) -> bytes:
    """The body of an embeddings request."""
    return orjson.dumps({"model": deployment.model, "input": list(texts), "encoding_format": "float"})


def _options(options: chat_pb2.GenerationOptions, max_tokens_field: str) -> Iterator[tuple[str, Any]]:
    for name in SAMPLING:
        if options.HasField(name):
            yield name, getattr(options, name)
    if options.HasField("max_output_tokens"):
        yield max_tokens_field, options.max_output_tokens
    if options.stop:
        yield "stop", list(options.stop)
    if options.user:
        yield "user", options.user
    if options.tools_json:
        yield "tools", [orjson.Fragment(tool) for tool in options.tools_json]
    if options.tool_choice_json:
        yield "tool_choice", orjson.Fragment(options.tool_choice_json)
    if options.response_format_json:
        yield "response_format", orjson.Fragment(options.response_format_json)


def _message(message: chat_pb2.ChatMessage) -> dict[str, Any]:
    encoded: dict[str, Any] = {"role": ROLES[message.role], "content": _content(message)}
    if message.name:
        encoded["name"] = message.name
    if message.tool_calls:
        encoded["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        encoded["tool_call_id"] = message.tool_call_id
    return encoded


def _content(message: chat_pb2.ChatMessage) -> str | list[Any] | None:
    parts = message.content
    if not parts:
        return None if message.tool_calls else ""
    if len(parts) == 1 and parts[0].HasField("text"):
        return parts[0].text
    return [_part(part) for part in parts]


def _part(part: chat_pb2.ContentPart) -> Any:
    match part.WhichOneof("part"):
        case "image_url":
            image = {"url": part.image_url.url}
            if part.image_url.detail:
                image["detail"] = part.image_url.detail
            return {"type": "image_url", "image_url": image}
        case "raw_json":
            return orjson.Fragment(part.raw_json)
        case _:
            return {"type": "text", "text": part.text}


def _tool_call(call: chat_pb2.ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
