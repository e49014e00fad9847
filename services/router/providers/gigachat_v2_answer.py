"""GigaChat's events (API v2), put in OpenAI's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.router.providers.gigachat_answer import FINISH_REASONS, Precached, call_id, usage_as_openai

STATE_FIELDS = ("tools_state_id", "tool_state_id")
"""Written the first way in requests and the second in answers; either is understood."""


class EventReader:
    """Reads one answer; events may leave out what was said before, such as who speaks."""

    def __init__(self, precached: Precached) -> None:
        self._precached = precached
        self._role = "assistant"
        self._state = ""
        self._calls: list[dict[str, Any]] = []

    def as_openai(self, event: dict[str, Any]) -> dict[str, Any]:
        """What one event adds; a status is an error.

        Calls wait for the end of the answer: until then the state they belong to may not have been told.
        """
        if isinstance(event.get("status"), int):
            return {"error": {"code": event["status"]}}
        delta: dict[str, Any] = {"content": "", "reasoning_content": ""}
        messages = event.get("messages") or ()
        for message in messages:
            self._add(message, delta)
        self._keep_state(event)
        finish = next((told["finish_reason"] for told in (event, *messages) if told.get("finish_reason")), "")
        if finish:
            delta["tool_calls"] = self._tool_calls()
        choice = {"delta": delta, "finish_reason": FINISH_REASONS.get(finish, finish)}
        return {"choices": [choice], "usage": self._usage(event.get("usage")), "error": event.get("error")}

    def _add(self, message: dict[str, Any], delta: dict[str, Any]) -> None:
        self._role = message.get("role") or self._role
        self._keep_state(message)
        field = "reasoning_content" if self._role == "reasoning" else "content"
        # A call may stand in a part of the content or in the message itself.
        for part in (*_parts(message.get("content")), message):
            delta[field] += part.get("text") or ""
            if call := part.get("function_call"):
                self._calls.append(call)

    def _keep_state(self, told: dict[str, Any]) -> None:
        for field in STATE_FIELDS:
            self._state = told.get(field) or self._state

    def _tool_calls(self) -> list[dict[str, Any]]:
        """The calls of the answer, once; the first of them carries their state."""
        calls, self._calls = self._calls, []
        return [
            {"index": index, "id": call_id("" if index else self._state), "function": call}
            for index, call in enumerate(calls)
        ]

    def _usage(self, usage: Any) -> Any:
        if not isinstance(usage, dict):
            return None
        details = usage.get("input_tokens_details") or {}
        figures = {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage.get("output_tokens"),
            "total_tokens": usage.get("total_tokens"),
            "precached_prompt_tokens": details.get("cached_tokens"),
        }
        return usage_as_openai(figures, self._precached)


def _parts(content: Any) -> Sequence[dict[str, Any]]:
    """The parts of a message, which may be a text instead."""
    return [{"text": content}] if isinstance(content, str) else content or ()
