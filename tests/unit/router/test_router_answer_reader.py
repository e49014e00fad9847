"""What OpenAI-compatible endpoints say, quirks included."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmmesh.chat.v1 import chat_pb2
from services.router.deltas import append
from services.router.providers.answer_reader import AnswerReader, embedded, token_usage
from services.router.providers.provider import FailureKind, ProviderFailure


def chunk(delta: Any = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": fields.pop("finish_reason", None)}
    return orjson.dumps({"choices": [choice], **fields})


def event(payload: bytes) -> bytes:
    return b"data: " + payload + b"\n\n"


def said(reader: AnswerReader, *payloads: bytes) -> chat_pb2.Delta:
    """All that the events say."""
    whole = chat_pb2.Delta()
    for payload in payloads:
        for delta in reader.feed(event(payload)):
            append(whole, delta)
    return whole


def buckets(usage: chat_pb2.TokenUsage | None) -> tuple[int, ...] | None:
    if usage is None:
        return None
    return (
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )


def test_text_reasoning_and_refusal_are_told_apart():
    reader = AnswerReader()
    assert said(reader, chunk({"content": "hi"})).text == "hi"
    assert said(reader, chunk({"reasoning_content": "hm"})).reasoning == "hm"
    assert said(reader, chunk({"reasoning": "hm"})).reasoning == "hm"
    assert said(reader, chunk({"content": None, "refusal": "no"})).text == "no"


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", chat_pb2.FINISH_REASON_STOP),
        ("length", chat_pb2.FINISH_REASON_LENGTH),
        ("tool_calls", chat_pb2.FINISH_REASON_TOOL_CALLS),
        ("content_filter", chat_pb2.FINISH_REASON_CONTENT_FILTER),
        ("eos_token", chat_pb2.FINISH_REASON_STOP),
        ("STOP", chat_pb2.FINISH_REASON_STOP),
        ("tool_use", chat_pb2.FINISH_REASON_TOOL_CALLS),
        ("repetition", chat_pb2.FINISH_REASON_LENGTH),
        ("model_length", chat_pb2.FINISH_REASON_LENGTH),
        ("MAX_TOKENS", chat_pb2.FINISH_REASON_LENGTH),
        ("a word of tomorrow", chat_pb2.FINISH_REASON_LENGTH),
    ],
)
def test_finish_reasons(word, reason):
    reader = AnswerReader()
    said(reader, chunk(finish_reason=word))
    assert reader.ended().finish_reason == reason


@pytest.mark.parametrize("word", ["error", "abort", "insufficient_system_resource", "Error"])
def test_an_answer_that_was_given_up_is_no_whole_one(word):
    reader = AnswerReader()
    said(reader, chunk({"content": "half"}))
    with pytest.raises(ProviderFailure) as caught:
        said(reader, chunk(finish_reason=word), b"[DONE]")
    assert caught.value.kind is FailureKind.UNAVAILABLE


def test_a_stream_that_says_done_without_a_reason_has_stopped():
    reader = AnswerReader()
    said(reader, b" [DONE]")
    assert reader.ended().finish_reason == chat_pb2.FINISH_REASON_STOP


def test_a_stream_that_says_neither_has_broken():
    reader = AnswerReader()
    said(reader, chunk({"content": "half"}))
    with pytest.raises(ProviderFailure) as caught:
        reader.ended()
    assert caught.value.kind is FailureKind.UNAVAILABLE


def test_usage_may_come_in_every_chunk_and_the_last_counts():
    reader = AnswerReader()
    said(reader, chunk({"content": "a"}, usage={"prompt_tokens": 5, "completion_tokens": 1}))
    said(reader, chunk(finish_reason="stop", usage=None))
    said(reader, orjson.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}))
    assert buckets(reader.ended().usage) == (5, 0, 0, 2, 0)


def test_other_choices_are_ignored():
    other = orjson.dumps({"choices": [{"index": 1, "delta": {"content": "other"}}]})
    assert said(AnswerReader(), other) == chat_pb2.Delta()


def test_what_arrives_together_is_one_piece():
    reader = AnswerReader()
    together = event(chunk({"role": "assistant"})) + event(chunk({"content": "a"})) + event(chunk({"content": "b"}))
    assert list(reader.feed(together)) == [chat_pb2.Delta(text="ab")]


def test_what_was_said_before_a_failure_is_handed_on_first():
    pieces = AnswerReader().feed(event(chunk({"content": "half"})) + event(b"{"))
    assert next(pieces).text == "half"
    with pytest.raises(ProviderFailure):
        next(pieces)


def test_a_tool_call_names_itself_once_even_if_the_provider_repeats_it():
    reader = AnswerReader()
    pieces = []
    for arguments in ('{"a"', ":1}", None):
        call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": arguments}}
        pieces.extend(said(reader, chunk({"tool_calls": [call]})).tool_calls)
    assert [(piece.id, piece.name, piece.arguments) for piece in pieces] == [
        ("c1", "f", '{"a"'),
        ("", "", ":1}"),
        ("", "", ""),
    ]


def test_tool_calls_without_an_index_are_counted():
    calls = [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}, {"id": "b", "function": None}]
    delta = said(AnswerReader(), chunk({"tool_calls": calls}))
    assert [(piece.index, piece.id, piece.arguments) for piece in delta.tool_calls] == [
        (0, "a", '{"x":1}'),
        (1, "b", ""),
    ]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"<html>",
        b'{"choices":[{"del',
        b"[]",
        b'{"choices":[{"delta":"text"}]}',
        b'{"choices":5}',
        b'{"choices":[{"delta":{"tool_calls":[1]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":99999999999}]}}]}',
        b'{"choices":[{"finish_reason":{"a":1}}]}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_chunk_is_malformed(payload):
    with pytest.raises(ProviderFailure) as caught:
        said(AnswerReader(), payload)
    assert caught.value.kind is FailureKind.MALFORMED


@pytest.mark.parametrize(
    ("code", "kind"),
    [(400, FailureKind.REFUSED), (429, FailureKind.THROTTLED), ("oops", FailureKind.UNAVAILABLE)],
)
def test_an_error_inside_the_stream_is_a_failure(code, kind):
    with pytest.raises(ProviderFailure) as caught:
        said(AnswerReader(), orjson.dumps({"error": {"message": "secret prompt", "code": code}}))
    assert caught.value.kind is kind
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 20}, (100, 0, 0, 20, 0)),
        (
            {
                "prompt_tokens": 100,
                "prompt_tokens_details": {"cached_tokens": 80},
                "completion_tokens": 20,
                "completion_tokens_details": {"reasoning_tokens": 15},
                "total_tokens": 120,
            },
            (20, 80, 0, 5, 15),
        ),
        (
            {
                "prompt_tokens": 100,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_creation_input_tokens": 30},
                "completion_tokens": 1,
            },
            (10, 60, 30, 1, 0),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 45}, (10, 0, 0, 5, 30)),
        (
            {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 99}, "completion_tokens": 5},
            (0, 10, 0, 5, 0),
        ),
        ({"prompt_tokens": 10, "prompt_tokens_details": None, "completion_tokens": None}, (10, 0, 0, 0, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": "many"}, None),
        (None, None),
        ([], None),
    ],
)
def test_usage_falls_into_disjoint_buckets(usage, expected):
    assert buckets(token_usage(usage)) == expected


counts = st.integers(0, 10**12)


@settings(deadline=None)
@given(prompt=counts, cached=counts, written=counts, completion=counts, reasoning=counts, beside=st.integers(0, 10**6))
def test_the_buckets_sum_to_what_was_billed(prompt, cached, written, completion, reasoning, beside):
    usage = token_usage(
        {
            "prompt_tokens": prompt,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_creation_input_tokens": written},
            "completion_tokens": completion,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    if prompt + completion:
        assert sum(buckets(usage)) == min(prompt, 2**30) + min(completion, 2**30)


def test_vectors_come_in_the_order_of_the_texts():
    rows = [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}]
    answer = embedded({"data": rows, "usage": {"prompt_tokens": 3, "total_tokens": 3}}, 2)
    assert answer.vectors == [[1.0, 0.0], [0.0, 1.0]]
    assert buckets(answer.usage) == (3, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": []},
        {"data": [{"index": 0, "embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]},
        {"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}]},
        {"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]},
    ],
)
def test_vectors_that_do_not_fit_the_texts_are_malformed(answer):
    with pytest.raises(ProviderFailure) as caught:
        embedded(answer, 2)
    assert caught.value.kind is FailureKind.MALFORMED
