"""Chat completions as OpenAI writes them: one JSON object, or a stream of events."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from llmmesh.chat.v1 import chat_pb2
from services.gateway.exchange import Finished
from services.gateway.openai.report import encoder, report_object, usage_object
from services.gateway.replay import WholeAnswer

FINISH_WORDS = {
    chat_pb2.FINISH_REASON_STOP: "stop",
    chat_pb2.FINISH_REASON_LENGTH: "length",
    chat_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}
DONE = b"data: [DONE]\n\n"


class ChatReply:
    """Writes one answer."""

    def __init__(self, request_id: str, model: str, *, include_usage: bool = False) -> None:
        self._id = f"chatcmpl-{request_id}"
        self._model = model
        self._created = int(time.time())
        self._include_usage = include_usage

    def whole(self, whole: WholeAnswer) -> bytes:
        """The answer as one object."""
        finished = whole.finished
        choice = {
            "index": 0,
            "message": _message(whole.answer),
            "logprobs": None,
            "finish_reason": _finish_word(finished),
        }
        return encoder.encode(
            {
                **self._head("chat.completion"),
                "choices": [choice],
                "usage": usage_object(finished.usage, finished.report),
                "llmmesh": report_object(finished.report, finished.usage),
            }
        )

    def opening(self) -> bytes:
        """The first event of a stream: who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def delta(self, delta: chat_pb2.Delta) -> bytes:
        """The event of one piece; nothing for an empty one."""
        wire = _delta(delta)
        return self._chunk(wire) if wire else b""

    def closing(self, finished: Finished) -> bytes:
        """The last events of a stream: why it ended, its usage where asked for, and the end mark.

        What it cost stands in the last event before the mark.
        """
        report = {"llmmesh": report_object(finished.report, finished.usage)}
        if not self._include_usage:
            return self._chunk({}, _finish_word(finished), report) + DONE
        usage = {"choices": [], "usage": usage_object(finished.usage, finished.report)}
        return self._chunk({}, _finish_word(finished)) + event(self._head_of_chunk() | usage | report) + DONE

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, more: dict[str, Any] | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._head_of_chunk(), "choices": [choice], **(more or {})}
        if self._include_usage:
            chunk["usage"] = None
        return event(chunk)

    def _head_of_chunk(self) -> dict[str, Any]:
        return self._head("chat.completion.chunk")

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + encoder.encode(data) + b"\n\n"


def _finish_word(finished: Finished) -> str:
    return FINISH_WORDS.get(finished.finish_reason, "stop")


def _message(answer: chat_pb2.Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [_tool_call(call.id, call.name, call.arguments) for call in answer.tool_calls]
    return message


def _delta(delta: chat_pb2.Delta) -> dict[str, Any]:
    wire: dict[str, Any] = {}
    if delta.reasoning:
        wire["reasoning_content"] = delta.reasoning
    if delta.text:
        wire["content"] = delta.text
    if delta.tool_calls:
        wire["tool_calls"] = list(_tool_call_pieces(delta.tool_calls))
    return wire


def _tool_call_pieces(pieces: Iterable[chat_pb2.ToolCallDelta]) -> Iterable[dict[str, Any]]:
    for piece in pieces:
        yield {"index": piece.index, **_tool_call(piece.id, piece.name, piece.arguments)}


def _tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
