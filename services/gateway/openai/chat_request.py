"""A chat completion request of OpenAI's, or the short form with a bare `prompt`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated

import msgspec

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid
from services.gateway.cache_control import CacheControl, checked_pace, checked_ttl
from services.gateway.exchange import DataClass, Question
from services.gateway.max_cost import checked_max_cost, least
from services.gateway.openai.members import Members
from services.gateway.openai.messages import chat_messages, messages_decoder
from services.gateway.validation import check_prompt

Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class StreamOptions(msgspec.Struct):
    """How a stream is written; members not named here are ignored."""

    include_usage: bool = False


class CacheWishes(msgspec.Struct, forbid_unknown_fields=True):
    """How the cache may be used for this request."""

    no_cache: bool = False
    no_store: bool = False
    max_age_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    ttl_seconds: float | None = None
    semantic: bool = True
    pieces_per_second: float | None = None


class Extension(msgspec.Struct, forbid_unknown_fields=True):
    """What is ours among OpenAI's fields."""

    cache: CacheWishes | None = None
    max_cost: Decimal | None = None
    """In units of the tenant's currency."""


_string = msgspec.json.Decoder(str)
_boolean = msgspec.json.Decoder(bool)
_number = msgspec.json.Decoder(float)
_whole = msgspec.json.Decoder(int)
_count = msgspec.json.Decoder(Count)
_int64 = msgspec.json.Decoder(Int64)
_stop = msgspec.json.Decoder(str | list[str])
_strings = msgspec.json.Decoder(list[str])
_extension = msgspec.json.Decoder(Extension)
_stream_options = msgspec.json.Decoder(StreamOptions)

REFUSED = {
    "audio": "spoken answers are not supported: leave it out",
    "function_call": "was replaced by `tool_choice`: use that",
    "functions": "was replaced by `tools`: use that",
    "top_logprobs": "log probabilities are not supported: leave it out",
}
"""Fields whose effect could not come back in the answer."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A decoded request and how its answer is to be written."""

    question: Question
    stream: bool
    include_usage: bool
    short: bool
    """Whether it came in the short form and is answered in it."""


def decode_chat_request(
    body: bytes,
    *,
    default_model: str,
    cache: CacheControl,
    data_class: DataClass = chat_pb2.DATA_CLASS_UNSPECIFIED,
    max_cost_micros: int | None = None,
) -> ChatRequest:
    """Decode and check a request. Raises FieldInvalid naming the field at fault.

    `default_model` is for the short form only; OpenAI's own form must name its model. `cache`, `data_class` and
    `max_cost_micros` are what the headers say.
    """
    members = Members(body)
    short = "prompt" in members
    model, messages = _short_form(members, default_model) if short else _full_form(members)
    stream, include_usage = _streaming(members)
    _refuse(members)
    extension = members.take("llmmesh", _extension) or Extension()
    max_cost_micros = least(max_cost_micros, checked_max_cost("llmmesh.max_cost", extension.max_cost))
    cache = _cache_control(extension.cache, cache)
    if not stream:
        cache = replace(cache, pieces_per_second=None)
    options, limit_field = _options(members)
    prompt = chat_pb2.ChatPrompt(model=model, messages=messages, options=options)

    def named(field: str) -> str:
        return limit_field if field == "max_output_tokens" else field

    check_prompt(prompt, named)
    question = Question(prompt, cache, limit_field, data_class, whole=not stream, max_cost_micros=max_cost_micros)
    return ChatRequest(question, stream, include_usage, short)


def _full_form(members: Members) -> tuple[str, list[chat_pb2.ChatMessage]]:
    model = members.take("model", _string)
    wire = members.take("messages", messages_decoder)
    return model or "", chat_messages(wire or ())


def _short_form(members: Members, default_model: str) -> tuple[str, list[chat_pb2.ChatMessage]]:
    if "messages" in members:
        raise FieldInvalid("prompt", "and `messages` exclude each other: send one of them")
    text = members.take("prompt", _string)
    if not text:
        raise FieldInvalid("prompt", "must be a text that is not empty")
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])
    return members.take("model", _string) or default_model, [message]


def _streaming(members: Members) -> tuple[bool, bool]:
    stream = members.take("stream", _boolean) or False
    options = members.take("stream_options", _stream_options)
    if options is not None and not stream:
        raise FieldInvalid("stream_options", "is only for `stream: true`")
    return stream, options is not None and options.include_usage


def _refuse(members: Members) -> None:
    for field, why in REFUSED.items():
        if field in members:
            raise FieldInvalid(field, why)
    if members.take("n", _whole) not in (None, 1):
        raise FieldInvalid("n", "must be 1: ask again for another answer")
    if members.take("logprobs", _boolean):
        raise FieldInvalid("logprobs", "log probabilities are not supported: leave it out")
    if members.take("modalities", _strings) not in (None, ["text"]):
        raise FieldInvalid("modalities", 'must be ["text"]')


def _cache_control(wishes: CacheWishes | None, in_headers: CacheControl) -> CacheControl:
    if wishes is None:
        return in_headers
    in_body = CacheControl(
        reads=not wishes.no_cache,
        writes=not wishes.no_store,
        semantic=wishes.semantic,
        max_age_seconds=wishes.max_age_seconds,
        ttl_seconds=checked_ttl("llmmesh.cache.ttl_seconds", wishes.ttl_seconds),
        pieces_per_second=checked_pace("llmmesh.cache.pieces_per_second", wishes.pieces_per_second),
    )
    return in_body.within(in_headers)


def _options(members: Members) -> tuple[chat_pb2.GenerationOptions, str]:
    """The options, and which of OpenAI's two fields limits the answer."""
    limit = members.take("max_tokens", _count)
    newer_limit = members.take("max_completion_tokens", _count)
    stop = members.take("stop", _stop)
    options = chat_pb2.GenerationOptions(
        temperature=members.take("temperature", _number),
        top_p=members.take("top_p", _number),
        max_output_tokens=limit if newer_limit is None else newer_limit,
        seed=members.take("seed", _int64),
        stop=[stop] if isinstance(stop, str) else stop,
        presence_penalty=members.take("presence_penalty", _number),
        frequency_penalty=members.take("frequency_penalty", _number),
        tools_json=members.take_objects("tools"),
        tool_choice_json=members.take_json("tool_choice", '{"', "a text or an object"),
        response_format_json=members.take_json("response_format", "{", "an object"),
        user=members.take("user", _string) or "",
        extra_json=members.take_rest(),
    )
    return options, "max_tokens" if newer_limit is None else "max_completion_tokens"
