"""OpenAI's wire format as the scripted provider speaks it."""

from __future__ import annotations

import base64
import itertools
import math
import random
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

TOKEN = re.compile(r"\s*\S+")
_numbers = itertools.count(1)

ERROR_TYPES = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says, before it is put on the wire."""

    model: str
    pieces: list[str]
    tool: str
    finish_reason: str
    usage: dict[str, Any]
    id: str
    created: int


def tokens(text: str) -> list[str]:
    """A text in the pieces a stream sends, one word each."""
    return TOKEN.findall(text)


def reply_to(body: dict[str, Any], text: str, tool_arguments: str, length: int, cached_tokens: int) -> Reply:
    """Answer a chat request with `text`, repeated up to `length` tokens, or with a call of its first tool."""
    tool = _tool_called(body)
    pieces = tokens(tool_arguments if tool else text)
    if length and pieces:
        pieces = list(itertools.islice(itertools.cycle(pieces), length))
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(pieces)
    finish = "length" if len(pieces) > limit else "tool_calls" if tool else "stop"
    pieces = pieces[:limit]
    prompt_tokens = sum(len(tokens(message_text(message))) for message in body["messages"])
    return Reply(
        model=body["model"],
        pieces=pieces,
        tool=tool,
        finish_reason=finish,
        usage=_usage(prompt_tokens, min(cached_tokens, prompt_tokens), len(pieces)),
        id=f"chatcmpl-{next(_numbers):08d}",
        created=int(time.time()),
    )


def chat_body(body: bytes) -> dict[str, Any]:
    """Decode a chat request; ValueError says what is missing."""
    decoded = orjson.loads(body)
    if not isinstance(decoded, dict) or not isinstance(decoded.get("model"), str) or not decoded.get("messages"):
        raise ValueError("a chat request is an object with 'model' and 'messages'")
    return decoded


def message_text(message: dict[str, Any]) -> str:
    """The text of a message, whichever way its content is written."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def completion(reply: Reply) -> bytes:
    """The whole answer as one object."""
    text = "".join(reply.pieces)
    message: dict[str, Any] = {"role": "assistant", "content": None if reply.tool else text, "refusal": None}
    if reply.tool:
        function = {"name": reply.tool, "arguments": text}
        message["tool_calls"] = [{"id": f"call_{reply.id}", "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
    return orjson.dumps(
        {
            "id": reply.id,
            "object": "chat.completion",
            "created": reply.created,
            "model": reply.model,
            "choices": [choice],
            "usage": reply.usage,
            "system_fingerprint": "fp_scripted",
        }
    )


class ChunkWriter:
    """Writes the events of one stream; the parts that never change are rendered once."""

    def __init__(self, reply: Reply, include_usage: bool) -> None:
        self._reply = reply
        self._head = (
            b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"system_fingerprint":"fp_scripted","choices":'
            % (reply.id.encode(), reply.created, orjson.dumps(reply.model))
        )
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def role(self) -> bytes:
        """The first chunk: a role and no text."""
        return self._chunk({"role": "assistant", "content": None if self._reply.tool else "", "refusal": None})

    def tokens(self) -> Iterator[bytes]:
        """One chunk per token; a tool call opens with its name."""
        if self._reply.tool:
            opening = {"name": self._reply.tool, "arguments": ""}
            call = {"index": 0, "id": f"call_{self._reply.id}", "type": "function", "function": opening}
            yield self._chunk({"tool_calls": [call]})
        for piece in self._reply.pieces:
            yield self._chunk(self._delta(piece))

    def finish(self) -> bytes:
        """The chunk that says why the answer ended."""
        return self._chunk({}, orjson.dumps(self._reply.finish_reason))

    def usage(self) -> bytes:
        """The extra chunk that `include_usage` asks for."""
        return b'%b[],"usage":%b}\n\n' % (self._head, orjson.dumps(self._reply.usage))

    def _delta(self, piece: str) -> dict[str, Any]:
        if self._reply.tool:
            return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        return {"content": piece}

    def _chunk(self, delta: dict[str, Any], finish: bytes = b"null") -> bytes:
        choice = b'[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]' % (orjson.dumps(delta), finish)
        return self._head + choice + self._tail


def embeddings(body: dict[str, Any], dimensions: int) -> bytes:
    """One vector of length 1 per text, the same for the same text."""
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    size = body.get("dimensions") or dimensions
    rows = [
        {"object": "embedding", "index": index, "embedding": _encoded(_vector(text, size), body)}
        for index, text in enumerate(texts)
    ]
    count = sum(len(tokens(text)) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return orjson.dumps({"object": "list", "data": rows, "model": body["model"], "usage": usage})


def error(status: int, message: str, code: str | None = None) -> bytes:
    """OpenAI's error object."""
    kind = ERROR_TYPES.get(status, "server_error")
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _tool_called(body: dict[str, Any]) -> str:
    choice = body.get("tool_choice")
    answered = body["messages"][-1].get("role") == "tool"
    if not body.get("tools") or choice == "none" or answered:
        return ""
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    return str(body["tools"][0]["function"]["name"])


def _usage(prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _vector(text: str, size: int) -> list[float]:
    numbers = random.Random(text)
    vector = [numbers.gauss() for _ in range(size)]
    length = math.hypot(*vector)
    return [number / length for number in vector]


def _encoded(vector: list[float], body: dict[str, Any]) -> str | list[float]:
    if body.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return vector
