"""Envoy's own refusals, in the words of OpenAI's API for REST clients and as plain statuses for gRPC ones."""

from __future__ import annotations

from deploy.envoy.schema import Node, extension

RETRY_AFTER_SECONDS = 2


def openai_replies() -> Node:
    """The edge's `local_reply_config`; the first mapper that fits wins."""
    return {
        "mappers": [
            # A key cannot be judged while the signing keys are out of reach: that is our fault, not the caller's.
            _mapper([_signing_keys_away(), _native()], _plain(), status=503, retry=True),
            _mapper([_signing_keys_away()], _SIGNING_KEYS_AWAY, status=503, retry=True),
            _mapper([_unaccepted_key(), _native()], _plain(), status=401),
            _mapper([_unaccepted_key()], _KEY_UNACCEPTED, status=401),
            _mapper([_native(), _status("GE", 400)], _plain()),
            *[_mapper([_status("EQ", status)], body, retry=retry) for status, body, retry in _BY_STATUS],
            _mapper([_status("GE", 500)], _body("%LOCAL_REPLY_BODY%", "server_error", "internal_error")),
            _mapper([_status("GE", 400)], _body("%LOCAL_REPLY_BODY%", "invalid_request_error", "invalid_request")),
        ]
    }


def _body(message: str, kind: str, code: str | None) -> Node:
    return {"json_format": {"error": {"message": message, "type": kind, "param": None, "code": code}}}


def _plain() -> Node:
    return {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}, "content_type": "text/plain"}


_SIGNING_KEYS_AWAY = _body(
    "Keys cannot be checked for the moment: retry shortly.", "service_unavailable", "authentication_unavailable"
)
_KEY_UNACCEPTED = _body(
    "Incorrect API key provided: %LOCAL_REPLY_BODY%. Send a valid key as 'Authorization: Bearer <key>'.",
    "invalid_request_error",
    "invalid_api_key",
)
_UNKNOWN_URL = _body(
    "Unknown request URL: %REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)% %PATH(NQ:ORIG_OR_PATH)%. "
    "Please check the URL and the method.",
    "invalid_request_error",
    "unknown_url",
)
_UNAVAILABLE = _body(
    "The service is temporarily unavailable (%RESPONSE_FLAGS%): retry shortly.", "service_unavailable", "unavailable"
)

# status, body, whether a retry can help
_BY_STATUS: list[tuple[int, Node, bool]] = [
    (403, _body("%LOCAL_REPLY_BODY%", "permission_error", "permission_denied"), False),
    (404, _UNKNOWN_URL, False),
    (413, _body("The request body is larger than 16 MiB.", "invalid_request_error", "request_too_large"), False),
    (429, _body("Too many requests: slow down.", "rate_limit_error", "rate_limit_exceeded"), True),
    (503, _UNAVAILABLE, True),
    (504, _body("The service took too long to answer.", "server_error", "timeout"), False),
]


def _mapper(filters: list[Node], body: Node, *, status: int | None = None, retry: bool = False) -> Node:
    mapper: Node = {
        "filter": filters[0] if len(filters) == 1 else {"and_filter": {"filters": filters}},
        "body_format_override": body,
    }
    if status:
        mapper["status_code"] = status
    if retry:
        mapper["headers_to_add"] = [{"header": {"key": "retry-after", "value": str(RETRY_AFTER_SECONDS)}}]
    return mapper


def _status(operator: str, status: int) -> Node:
    value = {"default_value": status, "runtime_key": f"llmmesh.replies.{operator.lower()}_{status}"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}


def _native() -> Node:
    """A native gRPC call. A transcoded one has the content type too, but also its original path."""
    grpc = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    rest = {"name": "x-envoy-original-path", "present_match": True, "invert_match": True}
    return {"and_filter": {"filters": [{"header_filter": {"header": grpc}}, {"header_filter": {"header": rest}}]}}


def _signing_keys_away() -> Node:
    return _details("Jwks_remote_fetch")


def _unaccepted_key() -> Node:
    return _details("jwt_authn_access_denied")


def _details(part: str) -> Node:
    return {
        "extension_filter": extension(
            "envoy.access_loggers.extension_filters.cel",
            "extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            expression=f"response.code_details.contains('{part}')",
        )
    }
