"""GigaChat's chunks (API v1) and vectors, put in OpenAI's words."""

from __future__ import annotations

import uuid
from typing import Any, Literal, TypeAlias

Precached: TypeAlias = Literal["beside", "inside"]

FINISH_REASONS = {"blacklist": "content_filter"}
"""Those it calls by other names than OpenAI."""
STATE_PREFIX = "fs_"
"""Marks a tool call's id that carries a functions_state_id: it comes back with the result of the call."""


def chunk_as_openai(chunk: dict[str, Any], precached: Precached) -> dict[str, Any]:
    """One chunk of a stream; a status without choices is an error."""
    if "choices" not in chunk and "status" in chunk:
        return {"error": {"code": chunk["status"]}}
    choices = [_choice(choice) for choice in chunk.get("choices") or ()]
    return {"choices": choices, "usage": usage_as_openai(chunk.get("usage"), precached)}


def embeddings_as_openai(answer: dict[str, Any]) -> dict[str, Any]:
    """Vectors; GigaChat counts the tokens of each by itself."""
    rows = answer.get("data")
    if answer.get("usage") or not isinstance(rows, list):
        return answer
    counts = [(row.get("usage") or {}).get("prompt_tokens") for row in rows if isinstance(row, dict)]
    if all(isinstance(count, int) for count in counts):
        return {**answer, "usage": {"prompt_tokens": sum(counts)}}
    return answer


def call_id(state: str | None) -> str:
    """An id for a tool call, which carries the state it was made in, if any."""
    return f"{STATE_PREFIX}{state}" if state else f"call_{uuid.uuid4().hex}"


def usage_as_openai(usage: Any, precached: Precached) -> Any:
    """Figures in which the cached tokens are part of the prompt's, as OpenAI's are."""
    if not isinstance(usage, dict):
        return None
    cached = usage.get("precached_prompt_tokens") or 0
    beside = cached if precached == "beside" else 0
    return {
        "prompt_tokens": usage["prompt_tokens"] + beside,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens": usage.get("completion_tokens"),
        "total_tokens": (usage.get("total_tokens") or 0) + beside,
    }


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    delta = dict(choice.get("delta") or {})
    if function := delta.get("function_call"):
        state = delta.get("functions_state_id")
        delta["tool_calls"] = [{"index": 0, "id": call_id(state), "function": function}]
    finish = choice.get("finish_reason")
    return {"index": choice.get("index"), "delta": delta, "finish_reason": FINISH_REASONS.get(finish or "", finish)}
