"""A prompt as the JSON of GigaChat's API v1: functions for tools, one call a turn, one system message, first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from llmmesh.chat.v1 import chat_pb2
from services.router.endpoints import GigaChatDeployment
from services.router.providers.conversation import Exchange, Spoken, exchanges, instructions, json_object
from services.router.providers.gigachat_answer import STATE_PREFIX
from services.router.providers.provider import unsupported

EXTRAS = frozenset({"repetition_penalty", "update_interval", "profanity_check", "reasoning_effort", "flags"})
"""Further fields of the caller that it knows; others it would refuse. `storage` would keep the conversation there."""


def chat_body(prompt: chat_pb2.ChatPrompt, deployment: GigaChatDeployment) -> bytes:
    """The body of a streaming chat completion.

    Raises:
        ProviderFailure: If GigaChat has no word for something in the prompt.
    """
    options = prompt.options
    body: dict[str, Any] = {name: orjson.Fragment(text) for name, text in options.extra_json.items() if name in EXTRAS}
    body["model"] = deployment.model
    body["messages"] = list(_messages(prompt.messages))
    body["stream"] = True
    body.update(sampling(options))
    body.update(_functions(options))
    if wanted := answer_format(options):
        body["response_format"] = wanted
    return orjson.dumps(body)


def embeddings_body(texts: Sequence[str], deployment: GigaChatDeployment) -> bytes:
    """The body of an embeddings request."""
    return orjson.dumps({"model": deployment.model, "input": list(texts)})


def sampling(options: chat_pb2.GenerationOptions) -> Iterator[tuple[str, Any]]:
    """How tokens are drawn, and how many."""
    if options.HasField("max_output_tokens"):
        yield "max_tokens", options.max_output_tokens
    # It refuses a temperature of 0; a mass of 0 leaves the likeliest token, which is what 0 asks for.
    if options.HasField("temperature") and options.temperature == 0:
        yield "top_p", 0
        return
    if options.HasField("temperature"):
        yield "temperature", options.temperature
    if options.HasField("top_p"):
        yield "top_p", options.top_p


def _messages(messages: Sequence[chat_pb2.ChatMessage]) -> Iterator[dict[str, Any]]:
    if told := instructions(messages):
        yield {"role": "system", "content": told}
    for turn in exchanges(messages):
        if isinstance(turn, Spoken):
            yield {"role": turn.role, "content": turn.text}
        else:
            yield from _call_and_result(turn)


def _call_and_result(turn: Exchange) -> Iterator[dict[str, Any]]:
    call = turn.call
    asked: dict[str, Any] = {
        "role": "assistant",
        "content": turn.said,
        "function_call": {"name": call.name, "arguments": json_object(call.arguments, "arguments")},
    }
    if call.id.startswith(STATE_PREFIX):
        asked["functions_state_id"] = call.id.removeprefix(STATE_PREFIX)
    yield asked
    if turn.result is not None:
        content = orjson.dumps(json_object(turn.result, "result")).decode()
        yield {"role": "function", "name": call.name, "content": content}


def _functions(options: chat_pb2.GenerationOptions) -> Iterator[tuple[str, Any]]:
    tools = [orjson.loads(tool) for tool in options.tools_json]
    if not tools:
        return
    functions = [specification(tool) for tool in tools]
    yield "functions", functions
    if options.tool_choice_json:
        yield "function_call", _choice(orjson.loads(options.tool_choice_json), functions)


def specification(tool: Any) -> dict[str, Any]:
    """A tool as GigaChat describes functions.

    Raises:
        ProviderFailure: If the tool is no function.
    """
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise unsupported("tools that are no functions")
    parameters = function.get("parameters") or {"type": "object"}
    # A schema of an object without any properties is refused.
    parameters = {"properties": {}, **parameters} if isinstance(parameters, dict) else parameters
    kept = {name: value for name, value in function.items() if name != "strict"}
    return {**kept, "parameters": parameters}


def _choice(choice: Any, functions: Sequence[Mapping[str, Any]]) -> Any:
    match choice:
        case "auto" | "none":
            return choice
        case "required" if len(functions) == 1:
            return {"name": functions[0]["name"]}
        case {"function": {"name": str(name)}}:
            return {"name": name}
        case _:
            raise unsupported("tool_choice of this kind")


def answer_format(options: chat_pb2.GenerationOptions) -> dict[str, Any] | None:
    """The JSON that is asked for; None for text."""
    match orjson.loads(options.response_format_json or "null"):
        case {"type": "json_schema", "json_schema": {"schema": schema, **more}}:
            return {"type": "json_schema", "schema": schema, "strict": bool(more.get("strict", True))}
        case {"type": "json_object"}:
            return {"type": "json_schema", "schema": {"type": "object", "properties": {}}, "strict": False}
        case _:
            return None
