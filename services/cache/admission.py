"""Which answers may be remembered, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from llmmesh.cache.v1 import cache_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.lots import shows_remote_media, temperature_of

CACHEABLE_CLASSES = frozenset({chat_pb2.DATA_CLASS_PUBLIC, chat_pb2.DATA_CLASS_INTERNAL})
"""Anything stricter, or not classified, is never kept."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept at most; a tenant's own limits only narrow them."""

    ttl_seconds: float
    """How long when nobody says."""
    longest_ttl_seconds: float
    largest_answer_bytes: int
    highest_temperature: float
    """Answers sampled hotter are not kept: their caller wants another one each time."""

    def within(self, own: tenant_pb2.CacheLimits) -> Limits:
        """The limits of a tenant."""
        longest = self.longest_ttl_seconds
        if own.HasField("max_ttl"):
            longest = min(longest, own.max_ttl.ToNanoseconds() / 1e9)
        temperature = self.highest_temperature
        if own.HasField("highest_temperature"):
            temperature = min(temperature, own.highest_temperature)
        return Limits(
            ttl_seconds=own.default_ttl.ToNanoseconds() / 1e9 if own.HasField("default_ttl") else self.ttl_seconds,
            longest_ttl_seconds=longest,
            largest_answer_bytes=min(self.largest_answer_bytes, own.largest_answer_bytes or self.largest_answer_bytes),
            highest_temperature=temperature,
        )


def lifetime_seconds(request: cache_pb2.StoreAnswerRequest, limits: Limits) -> float:
    """How long to keep an answer; `limits` are the tenant's."""
    asked = request.ttl.ToNanoseconds() / 1e9 if request.HasField("ttl") else limits.ttl_seconds
    least = request.limits.min_ttl.ToNanoseconds() / 1e9
    return min(max(asked, least), limits.longest_ttl_seconds)


def prompt_refusal(prompt: chat_pb2.ChatPrompt, limits: Limits) -> str:
    """Why no answer to a prompt may be remembered; empty when one may."""
    if temperature_of(prompt.options) > limits.highest_temperature:
        return "temperature"
    if any(message.role == chat_pb2.ROLE_TOOL for message in prompt.messages):
        return "tool_results"
    return "remote_media" if shows_remote_media(prompt) else ""


def exact_refusal(request: cache_pb2.StoreAnswerRequest, limits: Limits) -> str:
    """Why an answer may not be remembered at all; empty when it may."""
    answer = request.answer.answer
    if request.data_class not in CACHEABLE_CLASSES:
        return "data_class"
    if answer.finish_reason not in (chat_pb2.FINISH_REASON_STOP, chat_pb2.FINISH_REASON_TOOL_CALLS):
        return "incomplete"
    if not answer.text and not answer.tool_calls:
        return "empty"
    if request.answer.ByteSize() > limits.largest_answer_bytes:
        return "too_large"
    return prompt_refusal(request.prompt, limits)


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
