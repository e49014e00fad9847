"""What an answer used and where it came from, as JSON."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from llmmesh.chat.v1 import chat_pb2
from meshkit.usage import all_input_tokens, all_output_tokens
from services.gateway.exchange import CACHED, Report, cache_word

encoder = msgspec.json.Encoder(decimal_format="number")
"""Writes money as exact decimal numbers."""


def usage_object(usage: chat_pb2.TokenUsage, report: Report) -> dict[str, Any]:
    """OpenAI's `usage`: cached tokens count inside the prompt's, reasoning tokens inside the completion's.

    Of a cached answer it is what the first asking used, with the whole prompt as cached.
    """
    prompt_tokens, completion_tokens = all_input_tokens(usage), all_output_tokens(usage)
    from_cache = report.cache_status in CACHED
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": prompt_tokens if from_cache else usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def cost_number(report: Report) -> Decimal | None:
    """The cost as an exact decimal number; None while it is not known."""
    return None if report.cost_micros is None else Decimal(report.cost_micros).scaleb(-6).normalize() + 0


def report_object(report: Report, usage: chat_pb2.TokenUsage) -> dict[str, Any]:
    """The `llmmesh` member beside OpenAI's own."""
    members = {
        "request_id": report.request_id,
        "provider": report.provider,
        "cache": cache_word(report.cache_status),
        "cost": cost_number(report),
        "currency": report.currency_code,
        "overhead_ms": round(report.overhead_seconds * 1000, 2),
        "usage_estimated": usage.estimated,
    }
    return members | {"stopped_for": report.stopped_for} if report.stopped_for else members
