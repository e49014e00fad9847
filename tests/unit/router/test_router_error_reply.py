"""What an HTTP error means, and what of its text is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from services.router.providers.error_reply import http_failure, retry_after
from services.router.providers.provider import FailureKind

PROMPT = chat_pb2.ChatPrompt(
    messages=[
        chat_pb2.ChatMessage(
            role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="My salary is 100500 roubles")]
        )
    ]
)


def failure(status: int, message: str = "", code: str | None = None, param: str | None = None):
    body = orjson.dumps({"error": {"message": message, "type": "t", "param": param, "code": code}})
    return http_failure(status, {}, body, PROMPT)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.REFUSED),
        (413, FailureKind.REFUSED),
        (422, FailureKind.REFUSED),
        (404, FailureKind.NOT_FOUND),
        (401, FailureKind.CREDENTIAL),
        (403, FailureKind.CREDENTIAL),
        (429, FailureKind.THROTTLED),
        (408, FailureKind.TIMEOUT),
        (504, FailureKind.TIMEOUT),
        (500, FailureKind.UNAVAILABLE),
        (503, FailureKind.UNAVAILABLE),
        (302, FailureKind.UNAVAILABLE),
        (418, FailureKind.UNAVAILABLE),
    ],
)
def test_the_status_decides_what_to_do(status, kind):
    assert failure(status).kind is kind


def test_a_prompt_too_long_is_told_apart_from_other_refusals():
    assert failure(400, code="context_length_exceeded").kind is FailureKind.TOO_LONG
    assert failure(400, "This model's maximum context length is 10 tokens").kind is FailureKind.TOO_LONG


def test_the_log_line_holds_no_word_of_the_prompt():
    refused = failure(400, "Invalid content: 'My SALARY is 100500 roub' (\\u0441\\u044b\\u0440) at line 3", "bad_value")
    line = str(refused)
    assert line.startswith("code 'bad_value': Invalid content")
    for word in ("salary", "100500", "roub", "u0441"):
        assert word not in line.lower()


def test_the_log_line_is_short():
    assert len(str(failure(400, "z" * 5000))) < 300


def test_the_text_of_a_credential_error_is_never_kept():
    denied = failure(401, "Incorrect API key provided: sk-live-123", "invalid_api_key")
    assert "sk-live" not in str(denied)
    assert "invalid_api_key" in str(denied)


def test_a_caller_may_read_identifiers_only():
    assert failure(400, "text", "unsupported_value", "messages[0].role").public == (
        "code 'unsupported_value', param 'messages[0].role'"
    )
    assert failure(400, "text", "My salary is", "what?").public == ""


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"no"', b'{"error":"no"}', b'{"error":null}', b"\xff"])
def test_an_error_without_an_error_object_is_understood_all_the_same(body):
    assert http_failure(500, {}, body, PROMPT).kind is FailureKind.UNAVAILABLE


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_seconds(headers, seconds):
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("soon", None), ("", None)],
)
def test_a_limit_that_is_used_up_says_when_it_is_free_again(reset, seconds):
    used_up = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset}
    left = {"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "8h"}
    assert retry_after({**used_up, **left}) == seconds
    assert retry_after({**used_up, "retry-after": "5"}) == 5


def test_the_log_line_holds_no_key_even_if_the_provider_quotes_it():
    quoted = failure(400, "Bad header 'Bearer sk-live-0123456789abcdef0123456789' sent")
    assert "0123456789" not in str(quoted)
    assert "Bad header" in str(quoted)


def test_retry_after_as_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 85 < retry_after({"retry-after": later}) <= 90
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
