"""A prompt as the JSON of GigaChat's API v2: content in parts, options of the model apart, results from role tool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from llmmesh.chat.v1 import chat_pb2
from services.router.endpoints import GigaChatDeployment
from services.router.providers.conversation import Exchange, Spoken, exchanges, instructions, json_object
from services.router.providers.gigachat_answer import STATE_PREFIX
from services.router.providers.gigachat_request import answer_format, sampling, specification
from services.router.providers.provider import unsupported

EXTRAS = frozenset({"filter_config", "flags"})
OPTION_EXTRAS = frozenset({"repetition_penalty", "update_interval"})
"""Further fields of the caller that it knows, the latter among its model's options; others it would refuse."""
EFFORTS = ("low", "medium", "high")
"""No set: what a caller says may be a list, which has no hash."""


def chat_body(prompt: chat_pb2.ChatPrompt, deployment: GigaChatDeployment) -> bytes:
    """The body of a streaming chat completion.

    Raises:
        ProviderFailure: If GigaChat has no word for something in the prompt.
    """
    options = prompt.options
    body = dict(_extras(options, EXTRAS))
    body["model"] = deployment.model
    body["messages"] = list(_messages(prompt.messages))
    body["stream"] = True
    body.update(_tools(options))
    if model_options := dict(_model_options(options)):
        body["model_options"] = model_options
    if checked := options.extra_json.get("profanity_check"):
        body["disable_filter"] = not orjson.loads(checked)
    return orjson.dumps(body)


def _model_options(options: chat_pb2.GenerationOptions) -> Iterator[tuple[str, Any]]:
    yield from _extras(options, OPTION_EXTRAS)
    yield from sampling(options)
    effort = orjson.loads(options.extra_json.get("reasoning_effort", "null"))
    if effort in EFFORTS:
        yield "reasoning", {"effort": effort}
    if wanted := answer_format(options):
        yield "response_format", wanted


def _extras(options: chat_pb2.GenerationOptions, known: frozenset[str]) -> Iterator[tuple[str, Any]]:
    return ((name, orjson.Fragment(text)) for name, text in options.extra_json.items() if name in known)


def _messages(messages: Sequence[chat_pb2.ChatMessage]) -> Iterator[dict[str, Any]]:
    if told := instructions(messages):
        yield {"role": "system", "content": [{"text": told}]}
    for turn in exchanges(messages):
        if isinstance(turn, Spoken):
            yield {"role": turn.role, "content": [{"text": turn.text}]}
        else:
            yield from _call_and_result(turn)


def _call_and_result(turn: Exchange) -> Iterator[dict[str, Any]]:
    call = turn.call
    carried = call.id.startswith(STATE_PREFIX)
    state = {"tools_state_id": call.id.removeprefix(STATE_PREFIX)} if carried else {}
    said = [{"text": turn.said}] if turn.said else []
    asked = {"function_call": {"name": call.name, "arguments": json_object(call.arguments, "arguments")}}
    yield {"role": "assistant", "content": [*said, asked], **state}
    if turn.result is not None:
        result = {"function_result": {"name": call.name, "result": json_object(turn.result, "result")}}
        yield {"role": "tool", "content": [result], **state}


def _tools(options: chat_pb2.GenerationOptions) -> Iterator[tuple[str, Any]]:
    specifications = [specification(orjson.loads(tool)) for tool in options.tools_json]
    if not specifications:
        return
    yield "tools", [{"functions": {"specifications": specifications}}]
    if options.tool_choice_json:
        names = [each["name"] for each in specifications]
        yield "tool_config", _choice(orjson.loads(options.tool_choice_json), names)


def _choice(choice: Any, names: Sequence[str]) -> dict[str, Any]:
    match choice:
        case "auto" | "none":
            return {"mode": choice}
        case "required":
            return {"mode": "any", "functions_names_any": names}
        case {"function": {"name": str(name)}}:
            return {"mode": "forced", "function_name": name}
        case _:
            raise unsupported("tool_choice of this kind")
