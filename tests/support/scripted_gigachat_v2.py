"""GigaChat's API v2 as the scripted provider speaks it: answers alone, the rest is as in v1."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import orjson

from tests.support.scripted_gigachat import FINISH_REASONS, TASKS, GigaChatWire, GigaChatWriter, arguments
from tests.support.scripted_http import Received
from tests.support.scripted_reply import Asked, Figures, Reply

FIELDS = {
    "model", "messages", "stream", "model_options", "tools", "tool_config", "filter_config", "disable_filter", "flags",
}  # fmt: skip
OPTIONS = {
    "temperature", "top_p", "max_tokens", "repetition_penalty", "update_interval", "reasoning", "response_format",
}  # fmt: skip
PARTS = {
    "system": {"text"},
    "user": {"text"},
    "assistant": {"text", "function_call"},
    "tool": {"function_result"},
}
"""What a message of each role may hold."""
MODES = {"auto": set(), "none": set(), "forced": {"function_name"}, "any": {"functions_names_any"}}
"""What each mode of tool_config comes with."""


class GigaChatV2Wire(GigaChatWire):
    """GigaChat, asked in version 2."""

    malformed = b'event: response.message.delta\ndata: {"messages":[{"content":[{"text":"he\n\n'
    done = b""

    def task(self, received: Received) -> str:
        if received.path == "/api/v2/chat/completions":
            return "chat"
        task = TASKS.get((received.method, received.path), "")
        return "" if task == "chat" else task

    def asked(self, received: Received) -> Asked:
        body = orjson.loads(received.body)
        _check(body)
        if received.headers.get("accept") != "text/event-stream":
            raise ValueError("a stream needs Accept: text/event-stream")
        texts = [_text(message) for message in body["messages"]]
        return Asked(
            model=body["model"],
            prompt=" ".join(texts),
            last=texts[-1],
            tool=_function_called(body),
            limit=body.get("model_options", {}).get("max_tokens", 0),
            streams=bool(body.get("stream")),
            tells_usage=True,
        )

    def writer(self, reply: Reply, tells_usage: bool) -> GigaChatWriter:
        return GigaChatV2Writer(reply, tells_usage)

    def broken(self, message: str, code: str | None) -> bytes:
        return b"event: error\ndata: " + self.error(500, message) + b"\n\n"


class GigaChatV2Writer(GigaChatWriter):
    """Named events; thoughts under a role of their own; who speaks is said once."""

    def opening(self) -> bytes:
        return b""

    def tokens(self) -> Iterator[bytes]:
        if self._reply.tool:
            call = {"name": self._reply.tool, "arguments": arguments("".join(self._reply.pieces))}
            yield self._said({"function_call": call}, "assistant", tool_state_id=str(uuid.uuid4()))
            return
        for role, pieces in (("reasoning", self._reply.thoughts), ("assistant", self._reply.pieces)):
            for number, piece in enumerate(pieces):
                yield self._said({"text": piece}, "" if number else role)

    def ending(self) -> bytes:
        finish = self._reply.finish_reason
        more = {"usage": _usage(self._reply.usage)} if self._tells_usage else {}
        return self._event("response.message.done", finish_reason=FINISH_REASONS.get(finish, finish), **more)

    def _said(self, part: dict[str, Any], role: str, **more: Any) -> bytes:
        message = ({"role": role} if role else {}) | {"content": [part], **more}
        return self._event("response.message.delta", messages=[message])

    def _event(self, name: str, **told: Any) -> bytes:
        data = {"model": f"{self._reply.model}:32.3.18.5", "created_at": self._reply.created, **told}
        return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def _usage(figures: Figures) -> dict[str, Any]:
    """The cached tokens stand beside the input's."""
    fresh = figures.prompt - min(figures.cached, figures.prompt)
    return {
        "input_tokens": fresh,
        "input_tokens_details": {"prompt_tokens": fresh, "cached_tokens": figures.cached},
        "output_tokens": figures.completion,
        "total_tokens": figures.total - min(figures.cached, figures.total),
    }


def _text(message: dict[str, Any]) -> str:
    """What a message says, the result of a call as JSON."""
    results = (
        orjson.dumps(part["function_result"]["result"]).decode()
        for part in message["content"]
        if "function_result" in part
    )
    return "".join(part.get("text", "") for part in message["content"]) + "".join(results)


def _function_called(body: dict[str, Any]) -> str:
    config = body.get("tool_config", {"mode": "auto"})
    if "tools" not in body or config["mode"] == "none" or body["messages"][-1]["role"] == "tool":
        return ""
    (tool,) = body["tools"]
    names = [each["name"] for each in tool["functions"]["specifications"]]
    return str(config.get("function_name") or config.get("functions_names_any", names)[0])


def _check(body: Any) -> None:
    """Refuse what the real one is documented to refuse."""
    options = body.get("model_options", {})
    if unknown := sorted((set(body) - FIELDS) | (set(options) - OPTIONS)):
        raise ValueError(f"unknown fields {unknown}")
    for index, message in enumerate(body["messages"]):
        _check_message(index, message)
    if options.get("temperature", 1) <= 0:
        raise ValueError("temperature must be in (0, 2]")
    config = body.get("tool_config", {"mode": "auto"})
    if set(config) != {"mode"} | MODES[config["mode"]]:
        raise ValueError("tool_config has a mode and the names it needs")
    for tool in body.get("tools", ()):
        if any("properties" not in each["parameters"] for each in tool["functions"]["specifications"]):
            raise ValueError("parameters.properties is required")
    wanted = options.get("response_format")
    if wanted and (wanted["type"] != "json_schema" or "schema" not in wanted):
        raise ValueError("response_format needs a schema")


def _check_message(index: int, message: dict[str, Any]) -> None:
    role = message["role"]
    if role == "system" and index:
        raise ValueError("system message must be the first message")
    for part in message["content"]:
        if len(part) != 1 or not set(part) <= PARTS[role]:
            raise ValueError(f"a part of role {role} holds one of {sorted(PARTS[role])}")
        if "function_call" in part and not isinstance(part["function_call"]["arguments"], dict):
            raise ValueError("arguments must be an object")
        if "function_result" in part and not isinstance(part["function_result"]["result"], dict):
            raise ValueError("a function result is a JSON object")
