"""Rules every prompt obeys, whichever face it came through; each face has its own names for the fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid

Naming: TypeAlias = Callable[[str], str]
"""From a field of ChatPrompt to the caller's own name for it."""

Sampling: TypeAlias = Literal["temperature", "top_p", "presence_penalty", "frequency_penalty"]
RANGES: dict[Sampling, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
MOST_STOP_TEXTS = 4
LONGEST_MODEL_NAME = 200
MOST_TEXTS = 2048
MOST_PIECES = 10_000
"""What of a prompt can be read without holding up other callers."""
IMAGE_URLS = ("https://", "data:image/")
"""How the URL of an image begins. A provider fetches it: no other may reach into the network it stands in."""

MODELLED_FIELDS = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "llmmesh",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "model",
        "n",
        "presence_penalty",
        "prompt",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
    }
)
"""OpenAI's request fields that have a meaning here; all others pass to providers as they came."""

Read = TypeVar("Read")


class RawPart(msgspec.Struct):
    """A piece of a message that passes as it came."""

    type: Any = None


_json_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json_value = msgspec.json.Decoder(msgspec.Raw)
_json_part = msgspec.json.Decoder(RawPart)


def check_prompt(prompt: chat_pb2.ChatPrompt, named: Naming) -> None:
    """Raise FieldInvalid for the first rule the prompt breaks."""
    check_model(prompt.model, named("model"))
    if not prompt.messages:
        raise FieldInvalid(named("messages"), "must hold at least one message")
    for index, message in enumerate(prompt.messages):
        _check_message(message, f"{named('messages')}[{index}]")
    _check_options(prompt.options, named)


def check_size(prompt: chat_pb2.ChatPrompt, field: str) -> None:
    """Raise FieldInvalid for a prompt in more pieces than can be read while others wait; to count them is quick."""
    pieces = len(prompt.messages) + len(prompt.options.tools_json) + len(prompt.options.extra_json)
    if pieces <= MOST_PIECES:
        pieces += sum(len(message.content) + len(message.tool_calls) for message in prompt.messages)
    if pieces > MOST_PIECES:
        raise FieldInvalid(field, f"must hold at most {MOST_PIECES} messages, parts, tool calls and options together")


def check_model(model: str, field: str) -> None:
    """Raise FieldInvalid for what cannot be the name of a model."""
    if not model or len(model) > LONGEST_MODEL_NAME or not model.isprintable():
        raise FieldInvalid(field, "must name a model: list the models to see their names")


def check_texts(texts: Sequence[str], field: str) -> None:
    """Raise FieldInvalid unless there are 1 to 2048 texts, none of them empty."""
    check_number(texts, field)
    if not all(texts):
        raise FieldInvalid(field, "must not hold an empty text")


def check_number(texts: Sequence[object], field: str) -> None:
    """Raise FieldInvalid unless there are 1 to 2048, whatever they are."""
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise FieldInvalid(field, f"must hold 1 to {MOST_TEXTS} texts")


def check_json(prompt: chat_pb2.ChatPrompt, named: Naming) -> None:
    """Raise FieldInvalid unless every JSON text of a prompt is JSON, and none stands for a field that has its own."""
    options = prompt.options
    for index, tool in enumerate(options.tools_json):
        _check_json(_json_object, tool, f"{named('tools_json')}[{index}]")
    for field in ("tool_choice_json", "response_format_json"):
        if text := getattr(options, field):
            _check_json(_json_value, text, named(field))
    for name, text in options.extra_json.items():
        if name in MODELLED_FIELDS:
            raise FieldInvalid(f"{named('extra_json')}[{name}]", "has a field of its own: use that")
        _check_json(_json_value, text, f"{named('extra_json')}[{name[:LONGEST_MODEL_NAME]}]")
    for index, message in enumerate(prompt.messages):
        for part in message.content:
            if part.HasField("raw_json"):
                _check_raw_part(part.raw_json, f"{named('messages')}[{index}].content")


def _check_message(message: chat_pb2.ChatMessage, field: str) -> None:
    if message.role == chat_pb2.ROLE_UNSPECIFIED:
        raise FieldInvalid(f"{field}.role", "must be system, developer, user, assistant or tool")
    if not message.content and message.role != chat_pb2.ROLE_ASSISTANT:
        raise FieldInvalid(f"{field}.content", "must not be missing")
    if message.role == chat_pb2.ROLE_TOOL and not message.tool_call_id:
        raise FieldInvalid(f"{field}.tool_call_id", "must name the tool call this message answers")
    for index, part in enumerate(message.content):
        if part.HasField("image_url") and not part.image_url.url.startswith(IMAGE_URLS):
            raise FieldInvalid(f"{field}.content[{index}].image_url.url", "must be an https: or data:image/ URL")


def _check_options(options: chat_pb2.GenerationOptions, named: Naming) -> None:
    for field, (low, high) in RANGES.items():
        if options.HasField(field) and not low <= getattr(options, field) <= high:
            raise FieldInvalid(named(field), f"must be from {low} to {high}")
    if options.HasField("max_output_tokens") and options.max_output_tokens < 1:
        raise FieldInvalid(named("max_output_tokens"), "must be at least 1")
    if len(options.stop) > MOST_STOP_TEXTS or not all(options.stop):
        raise FieldInvalid(named("stop"), f"must hold at most {MOST_STOP_TEXTS} texts, none of them empty")


def _check_raw_part(text: str, field: str) -> None:
    if _check_json(_json_part, text, field).type == "image_url":
        raise FieldInvalid(field, "an image has a field of its own: use that")


def _check_json(decoder: msgspec.json.Decoder[Read], text: str, field: str) -> Read:
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FieldInvalid(field, f"must be JSON ({error})") from error
