"""OpenAI's wire format as the scripted provider speaks it."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson

from tests.support.provider_script import Script
from tests.support.scripted_http import Received
from tests.support.scripted_reply import Asked, Figures, Reply, tokens, vector

ERROR_TYPES = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}
TASKS = {
    ("POST", "/v1/chat/completions"): "chat",
    ("POST", "/v1/embeddings"): "embeddings",
    ("GET", "/v1/models"): "models",
    ("GET", "/health"): "health",
    ("POST", "/api/v1/auth/token"): "token",
}


class OpenAIWire:
    """OpenAI's own; also Qwen's, vLLM's, and with a token endpoint Cloud.ru's."""

    root = "/v1"
    stream_type = "text/event-stream; charset=utf-8"
    malformed = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"del\n\n'
    done = b"data: [DONE]\n\n"
    tokens_needed = False

    def task(self, received: Received) -> str:
        """What is asked of the server."""
        return TASKS.get((received.method, received.path), "")

    def asked(self, received: Received) -> Asked:
        """Decode a chat request; ValueError says what is wrong with it."""
        body = orjson.loads(received.body)
        if not isinstance(body, dict) or not isinstance(body.get("model"), str) or not body.get("messages"):
            raise ValueError("a chat request is an object with 'model' and 'messages'")
        texts = [message_text(message) for message in body["messages"]]
        return Asked(
            model=body["model"],
            prompt=" ".join(texts),
            last=texts[-1],
            tool=_tool_called(body),
            limit=body.get("max_completion_tokens") or body.get("max_tokens") or 0,
            streams=bool(body.get("stream")),
            tells_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        )

    def writer(self, reply: Reply, tells_usage: bool) -> ChunkWriter:
        """What writes the stream of a reply."""
        return ChunkWriter(reply, tells_usage)

    def completion(self, reply: Reply) -> bytes:
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
                "usage": _usage(reply.usage),
                "system_fingerprint": "fp_scripted",
            }
        )

    def embeddings(self, received: Received, script: Script) -> bytes:
        """One vector of length 1 per text, the same for the same text; ValueError if there are too many."""
        body = received.json()
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        if script.most_texts and len(texts) > script.most_texts:
            raise ValueError(f"at most {script.most_texts} texts")
        size = body.get("dimensions") or script.dimensions
        rows = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector(text, size), body)}
            for index, text in enumerate(texts)
        ]
        count = sum(len(tokens(text)) for text in texts)
        usage = {"prompt_tokens": count, "total_tokens": count}
        return orjson.dumps({"object": "list", "data": rows, "model": body["model"], "usage": usage})

    def error(self, status: int, message: str, code: str | None = None) -> bytes:
        """OpenAI's error object."""
        kind = ERROR_TYPES.get(status, "server_error")
        return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})

    def broken(self, message: str, code: str | None) -> bytes:
        """An error inside a stream."""
        return b"data: " + self.error(500, message, code) + b"\n\n"

    def too_long(self) -> tuple[int, str, str]:
        """Status, text and code of the error for a prompt that does not fit."""
        return 400, "This model's maximum context length is 10 tokens.", "context_length_exceeded"

    def token(self, received: Received, value: str, seconds: float) -> bytes:
        """Cloud.ru's answer to the id and the secret of a key; ValueError if one is missing."""
        body = received.json()
        if not body.get("keyId") or not body.get("secret"):
            raise ValueError("keyId and secret are required")
        return orjson.dumps({"access_token": value, "expires_in": int(seconds), "token_type": "Bearer"})


class CloudRuWire(OpenAIWire):
    """OpenAI's words behind tokens."""

    tokens_needed = True


class YandexOpenAIWire(OpenAIWire):
    """OpenAI's words as Yandex AI Studio takes them: some are refused, usage comes unasked."""

    refused = frozenset({"stop", "seed", "store", "audio", "stream_options"})

    def asked(self, received: Received) -> Asked:
        if refused := sorted(self.refused & received.json().keys()):
            raise ValueError(f"not supported: {refused}")
        return replace(super().asked(received), tells_usage=True)


class ChunkWriter:
    """Writes the events of one stream; the parts that never change are rendered once."""

    def __init__(self, reply: Reply, tells_usage: bool) -> None:
        self._reply = reply
        self._tells_usage = tells_usage
        self._head = (
            b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"system_fingerprint":"fp_scripted","choices":'
            % (reply.id.encode(), reply.created, orjson.dumps(reply.model))
        )
        self._tail = b',"usage":null}\n\n' if tells_usage else b"}\n\n"

    def opening(self) -> bytes:
        """The first chunk: a role and no text."""
        return self._chunk({"role": "assistant", "content": None if self._reply.tool else "", "refusal": None})

    def tokens(self) -> Iterator[bytes]:
        """One chunk per token, thoughts first; a tool call opens with its name."""
        for thought in self._reply.thoughts:
            yield self._chunk({"content": None, "reasoning_content": thought})
        if self._reply.tool:
            opening = {"name": self._reply.tool, "arguments": ""}
            call = {"index": 0, "id": f"call_{self._reply.id}", "type": "function", "function": opening}
            yield self._chunk({"tool_calls": [call]})
        for piece in self._reply.pieces:
            yield self._chunk(self._delta(piece))

    def ending(self) -> bytes:
        """The chunk that says why the answer ended, and the extra one with the usage where it was asked for."""
        finish = self._chunk({}, orjson.dumps(self._reply.finish_reason))
        if not self._tells_usage:
            return finish
        return finish + b'%b[],"usage":%b}\n\n' % (self._head, orjson.dumps(_usage(self._reply.usage)))

    def _delta(self, piece: str) -> dict[str, Any]:
        if self._reply.tool:
            return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        return {"content": piece}

    def _chunk(self, delta: dict[str, Any], finish: bytes = b"null") -> bytes:
        choice = b'[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]' % (orjson.dumps(delta), finish)
        return self._head + choice + self._tail


def message_text(message: dict[str, Any]) -> str:
    """The text of a message, whichever way its content is written."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def _tool_called(body: dict[str, Any]) -> str:
    choice = body.get("tool_choice")
    answered = body["messages"][-1].get("role") == "tool"
    if not body.get("tools") or choice == "none" or answered:
        return ""
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    return str(body["tools"][0]["function"]["name"])


def _usage(figures: Figures) -> dict[str, Any]:
    return {
        "prompt_tokens": figures.prompt,
        "completion_tokens": figures.completion,
        "total_tokens": figures.total,
        "prompt_tokens_details": {"cached_tokens": figures.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": figures.reasoning, "audio_tokens": 0},
    }


def _encoded(values: list[float], body: dict[str, Any]) -> str | list[float]:
    if body.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    return values
