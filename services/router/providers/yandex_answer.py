"""Yandex's messages, each the whole answer so far, put in OpenAI's words piece by piece."""

from __future__ import annotations

import uuid
from itertools import takewhile
from typing import Any

import orjson

from services.router.providers.answer_reader import embedded
from services.router.providers.provider import Embedded, FailureKind, ProviderFailure

FINISH_REASONS = {
    "ALTERNATIVE_STATUS_FINAL": "stop",
    "ALTERNATIVE_STATUS_TRUNCATED_FINAL": "length",
    "ALTERNATIVE_STATUS_CONTENT_FILTER": "content_filter",
    "ALTERNATIVE_STATUS_TOOL_CALLS": "tool_calls",
}
HALF_A_CHARACTER = "\ufffd"
"""How the text so far ends when the last token stopped inside a character."""


class CumulativeAnswer:
    """Remembers how much of an answer was handed on."""

    def __init__(self, *, may_append: bool) -> None:
        self._said = ""
        self._called = 0
        self._may_append = may_append

    def as_openai(self, message: dict[str, Any]) -> dict[str, Any]:
        """What one message adds.

        Raises:
            ProviderFailure: If it takes back what was said before, unless that may be corrected by saying more.
        """
        if "error" in message:
            return message
        result = message.get("result", message)
        choices = [self._choice(alternative) for alternative in result["alternatives"][:1]]
        return {"choices": choices, "usage": _usage(result.get("usage"))}

    def _choice(self, alternative: dict[str, Any]) -> dict[str, Any]:
        status = alternative.get("status")
        finish = FINISH_REASONS.get(status) if isinstance(status, str) else None
        message = alternative.get("message") or {}
        text = message.get("text") or ""
        # The filter may put a sentence of its own in the place of what was said: an end like others, no fault.
        replaced = finish == "content_filter" and not text.startswith(self._said)
        added = "" if replaced else self._added(text if finish else text.rstrip(HALF_A_CHARACTER))
        calls = (message.get("toolCallList") or {}).get("toolCalls") or []
        fresh = [_tool_call(index, call) for index, call in enumerate(calls) if index >= self._called]
        self._called += len(fresh)
        return {"delta": {"content": added, "tool_calls": fresh}, "finish_reason": finish}

    def _added(self, text: str) -> str:
        """What the text holds beyond what was said."""
        if not text:
            return ""
        if text.startswith(self._said):
            same = len(self._said)
        elif self._may_append:
            pairs = zip(text, self._said, strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        else:
            raise ProviderFailure(FailureKind.MALFORMED, "took back what it had said")
        self._said = text
        return text[same:]


def embedded_text(answer: dict[str, Any]) -> Embedded:
    """The vector of one text.

    Raises:
        ProviderFailure: If there is none.
    """
    usage = {"prompt_tokens": _count(answer.get("numTokens"))}
    return embedded({"data": [{"index": 0, "embedding": answer.get("embedding")}], "usage": usage}, 1)


def _tool_call(index: int, call: dict[str, Any]) -> dict[str, Any]:
    function = call["functionCall"]
    arguments = function.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    return {
        "index": index,
        "id": f"call_{uuid.uuid4().hex}",
        "function": {"name": function["name"], "arguments": text},
    }


def _usage(usage: Any) -> Any:
    """Figures as numbers: 64-bit ones come as text."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("completionTokensDetails") or {}
    return {
        "prompt_tokens": _count(usage.get("inputTextTokens")),
        "completion_tokens": _count(usage.get("completionTokens")),
        "total_tokens": _count(usage.get("totalTokens")),
        "completion_tokens_details": {"reasoning_tokens": _count(details.get("reasoningTokens"))},
    }


def _count(value: Any) -> int:
    return int(value or 0)
