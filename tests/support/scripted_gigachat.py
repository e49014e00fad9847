"""GigaChat's wire format (v1) as the scripted provider speaks it; as strict as the real one about what it takes."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import orjson

from tests.support.provider_script import Script
from tests.support.scripted_http import Received
from tests.support.scripted_reply import Asked, Figures, Reply, tokens, vector

TASKS = {
    ("POST", "/api/v1/chat/completions"): "chat",
    ("POST", "/api/v1/embeddings"): "embeddings",
    ("POST", "/api/v2/oauth"): "token",
    ("GET", "/api/v1/models"): "models",
}
FIELDS = {
    "model", "messages", "stream", "temperature", "top_p", "max_tokens", "functions", "function_call",
    "response_format", "repetition_penalty", "update_interval", "profanity_check", "reasoning_effort", "flags",
}  # fmt: skip
FINISH_REASONS = {"tool_calls": "function_call", "content_filter": "blacklist"}


class GigaChatWire:
    """GigaChat."""

    root = "/api/v1"
    stream_type = "text/event-stream"
    malformed = b'data: {"choices":[{"delta":{"content":"he\n\n'
    done = b"data: [DONE]\n\n"
    tokens_needed = True

    def task(self, received: Received) -> str:
        return TASKS.get((received.method, received.path), "")

    def asked(self, received: Received) -> Asked:
        body = orjson.loads(received.body)
        _check(body)
        if received.headers.get("accept") != "text/event-stream":
            raise ValueError("a stream needs Accept: text/event-stream")
        texts = [message["content"] for message in body["messages"]]
        return Asked(
            model=body["model"],
            prompt=" ".join(texts),
            last=texts[-1],
            tool=_function_called(body),
            limit=body.get("max_tokens", 0),
            streams=bool(body.get("stream")),
            tells_usage=True,
        )

    def writer(self, reply: Reply, tells_usage: bool) -> GigaChatWriter:
        return GigaChatWriter(reply, tells_usage)

    def embeddings(self, received: Received, script: Script) -> bytes:
        body = received.json()
        rows = [
            {
                "object": "embedding",
                "embedding": vector(text, script.dimensions),
                "index": index,
                "usage": {"prompt_tokens": len(tokens(text))},
            }
            for index, text in enumerate(body["input"])
        ]
        return orjson.dumps({"object": "list", "data": rows, "model": body["model"]})

    def error(self, status: int, message: str, code: str | None = None) -> bytes:
        return orjson.dumps({"status": status, "message": message})

    def broken(self, message: str, code: str | None) -> bytes:
        return b"data: " + self.error(500, message) + b"\n\n"

    def too_long(self) -> tuple[int, str, str]:
        return 422, "Invalid params: prompt tokens exceed the limit of the model", ""

    def token(self, received: Received, value: str, seconds: float) -> bytes:
        """OAuth: an authorization key, a scope, and an id of the request are needed."""
        scheme, _, key = received.headers.get("authorization", "").partition(" ")
        if scheme != "Basic" or b":" not in base64.b64decode(key):
            raise ValueError("Can't decode 'Authorization' header")
        if uuid.UUID(received.headers.get("rquid", "")).version != 4:
            raise ValueError("RqUID is no uuid4")
        if not parse_qs(received.body.decode()).get("scope", [""])[0].startswith("GIGACHAT_API_"):
            raise ValueError("scope is empty")
        return orjson.dumps({"access_token": value, "expires_at": int((time.time() + seconds) * 1000)})


class GigaChatWriter:
    """Chunks without an id, a function call in one piece, the usage with the end."""

    def __init__(self, reply: Reply, tells_usage: bool) -> None:
        self._reply = reply
        self._tells_usage = tells_usage

    def opening(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def tokens(self) -> Iterator[bytes]:
        if self._reply.tool:
            call = {"name": self._reply.tool, "arguments": arguments("".join(self._reply.pieces))}
            yield self._chunk({"content": "", "function_call": call, "functions_state_id": str(uuid.uuid4())})
            return
        for piece in self._reply.pieces:
            yield self._chunk({"content": piece})

    def ending(self) -> bytes:
        finish = self._reply.finish_reason
        more = {"usage": _usage(self._reply.usage)} if self._tells_usage else {}
        return self._chunk({"content": ""}, FINISH_REASONS.get(finish, finish), **more)

    def _chunk(self, delta: dict[str, Any], finish: str = "", **more: Any) -> bytes:
        choice = {"delta": delta, "index": 0} | ({"finish_reason": finish} if finish else {})
        chunk = {
            "choices": [choice],
            "created": self._reply.created,
            "model": f"{self._reply.model}:2.0.28.2",
            "object": "chat.completion",
            **more,
        }
        return b"data: " + orjson.dumps(chunk) + b"\n\n"


def arguments(text: str) -> Any:
    """Arguments as an object; text that is none stays text, which the real one has been seen to send."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _usage(figures: Figures) -> dict[str, int]:
    """The cached tokens stand beside the prompt's."""
    return {
        "prompt_tokens": figures.prompt - min(figures.cached, figures.prompt),
        "completion_tokens": figures.completion,
        "total_tokens": figures.total - min(figures.cached, figures.total),
        "precached_prompt_tokens": figures.cached,
    }


def _function_called(body: dict[str, Any]) -> str:
    choice = body.get("function_call")
    if not body.get("functions") or choice == "none" or body["messages"][-1]["role"] == "function":
        return ""
    return str((choice if isinstance(choice, dict) else body["functions"][0])["name"])


def _check(body: Any) -> None:
    """Refuse what the real one refuses."""
    if unknown := sorted(set(body) - FIELDS):
        raise ValueError(f"unknown fields {unknown}")
    for index, message in enumerate(body["messages"]):
        _check_message(index, message)
    if body.get("temperature", 1) <= 0:
        raise ValueError("temperature must be in (0, 2]")
    for function in body.get("functions", ()):
        if "properties" not in function["parameters"]:
            raise ValueError("parameters.properties is required")
    if body.get("function_call", "auto") not in ("auto", "none") and set(body["function_call"]) != {"name"}:
        raise ValueError("function_call is auto, none or a name")
    wanted = body.get("response_format")
    if wanted and (wanted["type"] != "json_schema" or "schema" not in wanted):
        raise ValueError("response_format needs a schema")


def _check_message(index: int, message: dict[str, Any]) -> None:
    role = message["role"]
    if role not in ("system", "user", "assistant", "function") or not isinstance(message["content"], str):
        raise ValueError("a message has a known role and a text")
    if role == "system" and index:
        raise ValueError("system message must be the first message")
    if role == "function" and not isinstance(orjson.loads(message["content"]), dict):
        raise ValueError("a function result is a JSON object")
    if "function_call" in message and not isinstance(message["function_call"]["arguments"], dict):
        raise ValueError("arguments must be an object")
