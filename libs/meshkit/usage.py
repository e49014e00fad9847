"""Sums of the disjoint buckets that tokens are counted in."""

from __future__ import annotations

from llmmesh.chat.v1 import chat_pb2


def all_input_tokens(usage: chat_pb2.TokenUsage) -> int:
    """All that a model read, from its cache or not."""
    return usage.input_tokens + usage.cached_input_tokens + usage.cache_write_tokens


def all_output_tokens(usage: chat_pb2.TokenUsage) -> int:
    """All that a model wrote, reasoning included."""
    return usage.output_tokens + usage.reasoning_tokens
