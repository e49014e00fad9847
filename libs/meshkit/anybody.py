"""A prompt as anybody might have asked it: who asks, and what a provider keeps of it, change no answer."""

from __future__ import annotations

from typing import Any

import orjson

from llmmesh.chat.v1 import chat_pb2
from meshkit.lots import extra

NO_PART_IN_ANSWERS = frozenset({"safety_identifier", "prompt_cache_key", "prompt_cache_retention", "store"})
"""Fields of OpenAI's API that name who asks, or say what the provider keeps."""


def as_anybody(prompt: chat_pb2.ChatPrompt) -> chat_pb2.ChatPrompt:
    """The prompt less what changes no answer, and less options of which none is set; itself where that is all of it."""
    if not prompt.HasField("options") or (prompt.options.ByteSize() and not _is_personal(prompt.options)):
        return prompt
    plain = chat_pb2.ChatPrompt()
    plain.CopyFrom(prompt)
    _depersonalize(plain.options)
    if not plain.options.ByteSize():
        plain.ClearField("options")
    return plain


def _is_personal(options: chat_pb2.GenerationOptions) -> bool:
    named = options.user or NO_PART_IN_ANSWERS & options.extra_json.keys()
    return bool(named) or "subject" in metadata_of(options)


def _depersonalize(options: chat_pb2.GenerationOptions) -> None:
    options.user = ""
    for name in NO_PART_IN_ANSWERS & options.extra_json.keys():
        del options.extra_json[name]
    metadata = metadata_of(options)
    if "subject" not in metadata:
        return
    del metadata["subject"], options.extra_json["metadata"]
    if metadata:  # rules of routing read the rest
        options.extra_json["metadata"] = orjson.dumps(metadata).decode()


def metadata_of(options: chat_pb2.GenerationOptions) -> dict[str, Any]:
    """OpenAI's `metadata` of a request; empty when it has none."""
    given = extra(options, "metadata")
    return given if isinstance(given, dict) else {}
