"""How our reasons look to a client of OpenAI's API.

Source of the shape: the `error` object of OpenAI's API reference, as its Python client reads it.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

OPENAI_ERROR = "x-openai-error"
"""Trailing metadata that carries the error body; the edge puts it in place of the transcoder's."""

# reason -> (type, code)
_SHAPES: dict[str, tuple[str, str | None]] = {
    "FIELD_INVALID": ("invalid_request_error", "invalid_value"),
    "PROMPT_BLOCKED": ("invalid_request_error", "content_policy_violation"),
    "CONTEXT_TOO_LONG": ("invalid_request_error", "context_length_exceeded"),
    "MAX_COST_EXCEEDED": ("invalid_request_error", "max_cost_exceeded"),
    "CREDENTIAL_INVALID": ("invalid_request_error", "invalid_api_key"),
    "ROLE_MISSING": ("permission_error", "role_missing"),
    "MODEL_NOT_ALLOWED": ("permission_error", "model_not_allowed"),
    "REGION_NOT_ALLOWED": ("permission_error", "region_not_allowed"),
    "EGRESS_REFUSED": ("permission_error", "egress_refused"),
    "MODEL_NOT_FOUND": ("invalid_request_error", "model_not_found"),
    "RESOURCE_NOT_FOUND": ("invalid_request_error", "resource_not_found"),
    "RESOURCE_EXISTS": ("invalid_request_error", "resource_exists"),
    "RESERVATION_CONFLICT": ("invalid_request_error", "reservation_conflict"),
    "VERSION_CONFLICT": ("invalid_request_error", "version_conflict"),
    "REQUEST_CONFLICT": ("invalid_request_error", "request_conflict"),
    "RESOURCE_IN_USE": ("invalid_request_error", "resource_in_use"),
    "BUDGET_EXCEEDED": ("insufficient_quota", "insufficient_quota"),
    "RATE_LIMITED": ("rate_limit_error", "rate_limit_exceeded"),
    "PROVIDER_REFUSED": ("invalid_request_error", "provider_refused"),
    "PROVIDER_TIMEOUT": ("server_error", "provider_timeout"),
    "PROVIDER_UNAVAILABLE": ("service_unavailable", "provider_unavailable"),
    "PROVIDER_STREAM_BROKEN": ("server_error", "provider_stream_broken"),
    "ANSWER_INVALID": ("server_error", "answer_invalid"),
    "MODEL_WARMING": ("service_unavailable", "model_warming"),
    "GUARD_UNAVAILABLE": ("service_unavailable", "guard_unavailable"),
    "BILLING_UNAVAILABLE": ("service_unavailable", "billing_unavailable"),
    "DEPENDENCY_UNAVAILABLE": ("service_unavailable", "dependency_unavailable"),
}


def openai_error(
    reason: str, message: str, metadata: Mapping[str, str] | None = None
) -> dict[str, dict[str, str | None]]:
    """The error object of OpenAI's API for one of our reasons; an unknown reason is a server error."""
    kind, code = _SHAPES.get(reason, ("server_error", "internal_error"))
    values = metadata or {}
    param = values.get("field") or ("model" if reason.startswith("MODEL_NOT") else None)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def openai_error_header(reason: str, message: str, metadata: Mapping[str, str]) -> str:
    """The error object as ASCII JSON, fit for a header."""
    text = orjson.dumps(openai_error(reason, message, metadata)).decode()
    return text if _fits_a_header(text) else "".join(map(_escaped, text))


def _fits_a_header(text: str) -> bool:
    """Whether it is all between space and tilde: more gRPC does not send, and DEL, ASCII too, JSON need not escape."""
    return text.isascii() and text.isprintable()


def _escaped(char: str) -> str:
    """Escape a character that does not fit a header the JSON way (RFC 8259 §7)."""
    return char if _fits_a_header(char) else "".join(f"\\u{unit:04x}" for unit in _utf16_units(char))


def _utf16_units(char: str) -> list[int]:
    raw = char.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[i : i + 2]) for i in range(0, len(raw), 2)]
