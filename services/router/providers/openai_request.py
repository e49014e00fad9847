"""A prompt as OpenAI's JSON; what came as JSON is spliced in byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import orjson

from llmmesh.chat.v1 import chat_pb2
from meshkit.identity import current_identity
from services.router.endpoints import OpenAIDeployment
from services.router.providers.profiles import PROFILES, Profile

ROLES = {
    chat_pb2.ROLE_SYSTEM: "system",
    # OpenAI reads both words the same, other endpoints know only the older.
    chat_pb2.ROLE_DEVELOPER: "system",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}

OURS = frozenset(
    {"model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "cache_salt"}
)
"""Fields the caller's extras may not set: they would change who answers, what is billed, or how it is read."""

EFFORTS_WITHOUT_THINKING = ("none", "minimal")

_Sampling = Literal["temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"]
SAMPLING: tuple[_Sampling, ...] = get_args(_Sampling)


def chat_body(prompt: chat_pb2.ChatPrompt, deployment: OpenAIDeployment) -> bytes:
    """The body of a streaming chat completion."""
    profile = PROFILES[deployment.profile]
    body = {**deployment.defaults, **chat_fields(prompt, profile, deployment.max_tokens_field)}
    body["model"] = deployment.model
    if deployment.include_usage and profile.stream_options:
        body["stream_options"] = profile.stream_options
    if profile.salts_cache and (tenant := current_identity().tenant_id):
        body["cache_salt"] = _salt(tenant)
    return orjson.dumps({name: value for name, value in body.items() if name not in profile.withheld})


def chat_fields(prompt: chat_pb2.ChatPrompt, profile: Profile, max_tokens_field: str) -> dict[str, Any]:
    """The fields of a streaming chat completion that come from the caller."""
    fields: dict[str, Any] = dict(_extras(prompt.options, profile))
    fields["messages"] = [_message(message) for message in prompt.messages]
    fields["stream"] = True
    fields.update(_options(prompt.options, max_tokens_field))
    return fields


def embeddings_body(texts: Sequence[str], deployment: OpenAIDeployment) -> bytes:
    """The body of an embeddings request."""
    several = list(texts) if PROFILES[deployment.profile].texts_per_request > 1 else texts[0]
    return orjson.dumps({"model": deployment.model, "input": several, "encoding_format": "float"})


def _extras(options: chat_pb2.GenerationOptions, profile: Profile) -> Iterator[tuple[str, Any]]:
    """Further fields of the caller, but for ours."""
    for name, text in options.extra_json.items():
        if name == "reasoning_effort" and profile.thinking_switch:
            yield profile.thinking_switch, orjson.loads(text) not in EFFORTS_WITHOUT_THINKING
        elif name not in OURS:
            yield name, orjson.Fragment(text)


def _salt(tenant_id: str) -> str:
    return hashlib.sha256(f"llmmesh cache {tenant_id}".encode()).hexdigest()


def _pseudonym(user: str) -> str:
    """What providers know an end user by: always the same, no name or address, and another for each tenant."""
    return hashlib.sha256(f"llmmesh user {current_identity().tenant_id} {user}".encode()).hexdigest()


def _options(options: chat_pb2.GenerationOptions, max_tokens_field: str) -> Iterator[tuple[str, Any]]:
    for name in SAMPLING:
        if options.HasField(name):
            yield name, getattr(options, name)
    if options.HasField("max_output_tokens"):
        yield max_tokens_field, options.max_output_tokens
    if options.stop:
        yield "stop", list(options.stop)
    if options.user:
        yield "user", _pseudonym(options.user)
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
