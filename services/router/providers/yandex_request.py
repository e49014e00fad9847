"""A prompt as the JSON of Yandex's native API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from llmmesh.chat.v1 import chat_pb2
from services.router.providers.conversation import Exchange, Spoken, exchanges, instructions, json_object
from services.router.providers.provider import unsupported

HIGHEST_TEMPERATURE = 1.0


def chat_body(prompt: chat_pb2.ChatPrompt, model_uri: str) -> bytes:
    """The body of a streaming completion.

    Raises:
        ProviderFailure: If Yandex has no word for something in the prompt.
    """
    body: dict[str, Any] = {
        "modelUri": model_uri,
        "completionOptions": dict(_completion(prompt.options)),
        "messages": list(_messages(prompt.messages)),
    }
    body.update(_tools(prompt.options))
    if prompt.options.response_format_json:
        body.update(_format(orjson.loads(prompt.options.response_format_json)))
    return orjson.dumps(body)


def embedding_body(text: str, model_uri: str) -> bytes:
    """The body of an embedding request."""
    return orjson.dumps({"modelUri": model_uri, "text": text})


def _completion(options: chat_pb2.GenerationOptions) -> Iterator[tuple[str, Any]]:
    yield "stream", True
    if options.HasField("temperature"):
        yield "temperature", min(options.temperature, HIGHEST_TEMPERATURE)
    if options.HasField("max_output_tokens"):
        yield "maxTokens", str(options.max_output_tokens)
    if effort := options.extra_json.get("reasoning_effort"):
        silent = orjson.loads(effort) in ("none", "minimal")
        yield "reasoningOptions", {"mode": "DISABLED" if silent else "ENABLED_HIDDEN"}


def _messages(messages: Sequence[chat_pb2.ChatMessage]) -> Iterator[dict[str, Any]]:
    if told := instructions(messages):
        yield {"role": "system", "text": told}
    for turn in exchanges(messages):
        if isinstance(turn, Spoken):
            yield {"role": turn.role, "text": turn.text}
        else:
            yield from _call_and_result(turn)


def _call_and_result(turn: Exchange) -> Iterator[dict[str, Any]]:
    call = turn.call
    if turn.said:
        yield {"role": "assistant", "text": turn.said}
    asked = {"name": call.name, "arguments": json_object(call.arguments, "arguments")}
    yield {"role": "assistant", "toolCallList": {"toolCalls": [{"functionCall": asked}]}}
    if turn.result is not None:
        result = {"name": call.name, "content": turn.result}
        yield {"role": "user", "toolResultList": {"toolResults": [{"functionResult": result}]}}


def _tools(options: chat_pb2.GenerationOptions) -> Iterator[tuple[str, Any]]:
    if not options.tools_json:
        return
    yield "tools", [{"function": _function(orjson.loads(tool))} for tool in options.tools_json]
    if options.tool_choice_json:
        yield "toolChoice", _choice(orjson.loads(options.tool_choice_json))
    if parallel := options.extra_json.get("parallel_tool_calls"):
        yield "parallelToolCalls", orjson.Fragment(parallel)


def _function(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        raise unsupported("tools that are no functions")
    return function


def _choice(choice: Any) -> dict[str, Any]:
    match choice:
        case "auto" | "none" | "required":
            return {"mode": choice.upper()}
        case {"function": {"name": str(name)}}:
            return {"functionName": name}
        case _:
            raise unsupported("tool_choice of this kind")


def _format(wanted: Any) -> dict[str, Any]:
    match wanted:
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return {"jsonSchema": {"schema": schema}}
        case {"type": "json_object"}:
            return {"jsonObject": True}
        case _:
            return {}
