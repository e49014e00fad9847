"""Pieces of an answer: whether they say anything, how much, and how two become one."""

from __future__ import annotations

from llmmesh.chat.v1 import chat_pb2


def says_something(delta: chat_pb2.Delta) -> bool:
    """Whether the piece holds text, reasoning or a tool call: role-only pieces do not."""
    return bool(delta.text or delta.reasoning or delta.tool_calls)


def size_bytes(delta: chat_pb2.Delta) -> int:
    """Bytes of UTF-8 that the piece holds."""
    calls = sum(len(call.name.encode()) + len(call.arguments.encode()) for call in delta.tool_calls)
    return len(delta.text.encode()) + len(delta.reasoning.encode()) + calls


def append(said: chat_pb2.Delta, delta: chat_pb2.Delta) -> None:
    """Add `delta` to the end of `said`; pieces of one tool call are joined."""
    if delta.text:
        said.text += delta.text
    if delta.reasoning:
        said.reasoning += delta.reasoning
    for call in delta.tool_calls:
        last = said.tool_calls[-1] if said.tool_calls else None
        if last is not None and last.index == call.index and not call.id and not call.name:
            last.arguments += call.arguments
        else:
            said.tool_calls.append(call)
