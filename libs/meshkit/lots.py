"""Lots that fall the same way wherever and whenever they are drawn: who takes part in what."""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

import orjson

from llmmesh.chat.v1 import chat_pb2
from meshkit.identity import Identity


class Unit(StrEnum):
    """Who is treated alike."""

    USER = "user"
    """An end user of a tenant, as the request names one."""
    KEY = "key"
    TENANT = "tenant"
    REQUEST = "request"


def lot(*words: str) -> float:
    """A number of [0, 1) that hangs on the words alone."""
    digest = blake2b(digest_size=8)
    for word in words:
        text = word.encode()
        digest.update(len(text).to_bytes(4) + text)
    return (int.from_bytes(digest.digest()) >> 11) / 2**53


def unit_of(unit: Unit, asker: Identity, prompt: chat_pb2.ChatPrompt) -> str:
    """Names the unit a request comes from; empty when the request does not tell."""
    match unit:
        case Unit.TENANT:
            return asker.tenant_id
        case Unit.KEY:
            return asker.key_id and f"{asker.tenant_id} {asker.key_id}"
        case Unit.USER:
            person = person_of(prompt.options)
            return person and f"{asker.tenant_id} {person}"
        case Unit.REQUEST:
            return asker.request_id


def person_of(options: chat_pb2.GenerationOptions) -> str:
    """The end user a request names: OpenAI's `user`, else its newer `safety_identifier`."""
    if options.user:
        return options.user
    named = extra(options, "safety_identifier")
    return named if isinstance(named, str) else ""


USUAL_TEMPERATURE = 1.0
"""What providers take when nothing is said."""


def temperature_of(options: chat_pb2.GenerationOptions) -> float:
    """How hot an answer is sampled."""
    return options.temperature if options.HasField("temperature") else USUAL_TEMPERATURE


def shows_remote_media(prompt: chat_pb2.ChatPrompt) -> bool:
    """Whether it shows an image, or another medium, by its address alone: what lies there may change."""
    parts = (part for message in prompt.messages for part in message.content)
    return any(_is_remote(part) for part in parts)


def _is_remote(part: chat_pb2.ContentPart) -> bool:
    url = part.image_url.url
    return (bool(url) and not url.startswith("data:")) or '"http' in part.raw_json


def extra(options: chat_pb2.GenerationOptions, name: str) -> object:
    """What a request says under a name that is none of ours; None when it says nothing that can be read."""
    text = options.extra_json.get(name, "")
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None
