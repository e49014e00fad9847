"""Error replies: what to do about each, and what of their text may be kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from llmmesh.chat.v1 import chat_pb2
from services.router.providers.provider import FailureKind, ProviderFailure

KEPT_CHARACTERS = 200

_BY_STATUS = {
    400: FailureKind.REFUSED,
    401: FailureKind.CREDENTIAL,
    402: FailureKind.CREDENTIAL,
    403: FailureKind.CREDENTIAL,
    404: FailureKind.NOT_FOUND,
    408: FailureKind.TIMEOUT,
    413: FailureKind.REFUSED,
    422: FailureKind.REFUSED,
    429: FailureKind.THROTTLED,
    504: FailureKind.TIMEOUT,
}
_TOO_LONG = re.compile(
    r"context_length_exceeded|maximum context length|range of input length"
    r"|\btokens?\b.{0,80}\b(?:exceed|no more than|at most|limit)|exceed.{0,80}\btokens?\b",
    re.IGNORECASE,
)
"""How OpenAI and vLLM, DashScope, and the others say it."""
_ACCOUNT_CLOSED = frozenset({"insufficient_quota", "billing_hard_limit_reached", "Arrearage"})
"""Codes that look like refusals or throttling but hold until somebody pays."""
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_.\[\]-]{0,63}")
_WORD = re.compile(r"\w+")
_OPAQUE = re.compile(r"[\w+/=.:~-]{20,}")
"""Keys, tokens, ids and addresses: providers like to quote those, too."""
_ESCAPED = re.compile(r"\\u[0-9a-fA-F]{4}")


def http_failure(
    status: int, headers: Mapping[str, str], body: bytes, prompt: chat_pb2.ChatPrompt | None
) -> ProviderFailure:
    """What an HTTP error means. Its message is fit for logs: short, and without any word of the prompt."""
    error = _error_object(body)
    kind = _kind(status, error)
    return ProviderFailure(
        kind,
        _log_line(kind, error, prompt),
        status=str(status),
        retry_after_seconds=retry_after(headers),
        public=_identifiers(error),
    )


def _kind(status: int, error: dict[str, Any]) -> FailureKind:
    kind = _BY_STATUS.get(status, FailureKind.UNAVAILABLE)
    if _ACCOUNT_CLOSED & {str(error.get("code")), str(error.get("type"))}:
        return FailureKind.CREDENTIAL
    if kind is FailureKind.REFUSED and _TOO_LONG.search(f"{error.get('code')} {error.get('message')}"):
        return FailureKind.TOO_LONG
    return kind


def embedded_failure(error: Any) -> ProviderFailure:
    """What an error object inside a stream means; a status in its code counts as one."""
    error = error if isinstance(error, dict) else {}
    codes = (error.get(name) for name in ("code", "httpCode", "status"))
    status = next((code for code in codes if isinstance(code, int)), 0)
    return ProviderFailure(
        _kind(status, error),
        f"sent an error inside the stream: {_identifiers(error) or 'no code'}",
        status=str(status or ""),
        public=_identifiers(error),
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the provider asks us to wait; None when it says nothing we understand."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value) * unit
        if value and (until := _date(value)):
            return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return _until_reset(headers)


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until a limit that is used up, told in OpenAI's own headers, is free again."""
    waits = [
        _duration(headers.get(f"x-ratelimit-reset-{limited}", ""))
        for limited in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{limited}") == "0"
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def _duration(text: str) -> float | None:
    """Seconds of a duration such as 1s, 6m0s or 120ms."""
    parts = _DURATION.fullmatch(text.strip())
    if not text.strip() or not parts:
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in parts.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _date(value: str) -> datetime | None:
    try:
        return parsedate_to_datetime(value).astimezone(UTC)
    except ValueError:
        return None


def _error_object(body: bytes) -> dict[str, Any]:
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = decoded.get("error", decoded) if isinstance(decoded, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def _identifiers(error: dict[str, Any]) -> str:
    """The code and the parameter an error names: words of the API, never free text."""
    named = ((name, error.get(name)) for name in ("code", "param"))
    return ", ".join(
        f"{name} {text!r}" for name, text in named if isinstance(text, str) and _IDENTIFIER.fullmatch(text)
    )


def _log_line(kind: FailureKind, error: dict[str, Any], prompt: chat_pb2.ChatPrompt | None) -> str:
    """The error's identifiers, and its text where that cannot hold a secret."""
    message = error.get("message")
    if kind is FailureKind.CREDENTIAL or not isinstance(message, str):
        return _identifiers(error) or "no error object"
    return f"{_identifiers(error) or 'no code'}: {_without_prompt(message, prompt)}"


def _without_prompt(message: str, prompt: chat_pb2.ChatPrompt | None) -> str:
    """Blank every word, whole or cut, that the prompt holds too: providers like to quote what they refuse."""
    if prompt is None:
        return "text withheld"
    said = "\n".join(_texts(prompt)).lower()
    legible = _ESCAPED.sub("…", _OPAQUE.sub("…", message)[:KEPT_CHARACTERS])
    return _WORD.sub(lambda word: "…" if word[0].lower() in said else word[0], legible)


def _texts(prompt: chat_pb2.ChatPrompt) -> Iterator[str]:
    """Everything of a prompt that came from its author."""
    for message in prompt.messages:
        yield message.name
        yield from (part.text or part.raw_json or part.image_url.url for part in message.content)
        yield from (f"{call.name} {call.arguments}" for call in message.tool_calls)
    yield from prompt.options.tools_json
    yield from prompt.options.stop
    yield from (prompt.options.user, prompt.options.tool_choice_json, prompt.options.response_format_json)
    yield from prompt.options.extra_json.values()
