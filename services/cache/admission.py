"""Which answers may be remembered."""

from __future__ import annotations

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2

CACHEABLE_CLASSES = frozenset({chat_pb2.DATA_CLASS_PUBLIC, chat_pb2.DATA_CLASS_INTERNAL})
"""Anything stricter, or not classified, is never kept."""


def exact_refusal(request: cache_pb2.StoreAnswerRequest, *, largest_bytes: int) -> str:
    """Why an answer may not be remembered at all; empty when it may."""
    answer = request.answer.answer
    if request.data_class not in CACHEABLE_CLASSES:
        return "data_class"
    if answer.finish_reason not in (chat_pb2.FINISH_REASON_STOP, chat_pb2.FINISH_REASON_TOOL_CALLS):
        return "incomplete"
    if not answer.text and not answer.tool_calls:
        return "empty"
    if request.answer.ByteSize() > largest_bytes:
        return "too_large"
    return ""


def semantic_refusal(request: cache_pb2.StoreAnswerRequest) -> str:
    """Why an answer that may be remembered may not answer other wordings; empty when it may.

    A tool call carries arguments taken from the very words of the question.
    """
    if not request.semantic:
        return "not_asked"
    answer = request.answer.answer
    if answer.tool_calls or answer.finish_reason != chat_pb2.FINISH_REASON_STOP:
        return "tool_calls"
    return ""
