"""OpenAI's chat completion request: what is accepted, kept byte for byte, refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid
from services.gateway.cache_control import AS_ALLOWED, CacheControl
from services.gateway.openai.chat_request import ChatRequest, decode_chat_request

HELLO = [{"role": "user", "content": "hello"}]


def decode(body: bytes | None = None, **change: Any) -> ChatRequest:
    if body is None:
        body = orjson.dumps({"model": "m", "messages": HELLO, **change})
    return decode_chat_request(body, default_model="small", cache=AS_ALLOWED)


def refused(body: bytes | None = None, **change: Any) -> str:
    with pytest.raises(FieldInvalid) as caught:
        decode(body, **change)
    return caught.value.metadata["field"]


def test_a_plain_request_is_one_prompt() -> None:
    asked = decode(temperature=0, max_tokens=16, seed=-1, stop="END", user="ada")
    options = asked.question.prompt.options
    assert (asked.stream, asked.short) == (False, False)
    assert options.HasField("temperature")
    assert not options.HasField("top_p")
    assert (options.temperature, options.max_output_tokens, options.seed) == (0, 16, -1)
    assert (list(options.stop), options.user) == (["END"], "ada")


def test_json_that_we_do_not_model_is_kept_byte_for_byte() -> None:
    tool = '{"type":"function", "function":{"name":"w","parameters":{"z":1,"a":{"maximum":9007199254740993,"x":5.0}}}}'
    body = (
        '{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[ '
        + tool
        + ' ],"tool_choice": {"b":1, "a":2.0},"response_format":{"type":"json_object" },"top_k": 40,'
        + '"metadata":{"b":1,"a":[1.0,{}]},"reasoning_effort":"low"}'
    )
    options = decode(body.encode()).question.prompt.options
    assert list(options.tools_json) == [tool]
    assert options.tool_choice_json == '{"b":1, "a":2.0}'
    assert options.response_format_json == '{"type":"json_object" }'
    assert dict(options.extra_json) == {
        "top_k": "40",
        "metadata": '{"b":1,"a":[1.0,{}]}',
        "reasoning_effort": '"low"',
    }


def test_a_member_that_is_null_is_absent() -> None:
    options = decode(temperature=None, tools=None, stop=None, top_k=None).question.prompt.options
    assert options == chat_pb2.GenerationOptions()


def test_the_newer_limit_goes_before_the_older() -> None:
    asked = decode(max_tokens=5, max_completion_tokens=7)
    assert asked.question.prompt.options.max_output_tokens == 7
    assert asked.question.output_limit_field == "max_completion_tokens"
    assert decode(max_tokens=5).question.output_limit_field == "max_tokens"


def test_every_role_and_kind_of_content_is_understood() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    asked = decode(
        messages=[
            {"role": "system", "content": "s"},
            {"role": "developer", "content": "d"},
            {
                "role": "user",
                "name": "ada",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "https://x.org/a.png", "detail": "low"}},
                    audio,
                ],
            },
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ]
    )
    system, developer, user, assistant, tool = asked.question.prompt.messages
    assert (system.role, developer.role) == (chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_DEVELOPER)
    text, image, other = user.content
    assert (user.name, text.text, image.image_url.detail) == ("ada", "look", "low")
    assert orjson.loads(other.raw_json) == audio
    assert (assistant.tool_calls[0].name, tool.tool_call_id) == ("f", "c1")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m" * 300}, "model"),
        ({"model": "m\n"}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"id": 1}]}]}, "messages[1].tool_calls[0].id"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"seed": "x"}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": 5}, "stream_options"),
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": 5}, "stop"),
        ({"user": 5}, "user"),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"functions": []}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    assert refused(**change) == field


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"model": "scripted"',
        b'{"a":NaN}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
    ],
)
def test_a_body_that_is_no_json_object_is_named_as_the_body(body: bytes) -> None:
    assert refused(body) == "body"


def test_text_that_is_not_utf_8_is_refused_where_it_stands() -> None:
    assert refused(b'{"model":"m","messages":[{"role":"user","content":"x"}],"extra":"\xff"}') == "extra"
    assert refused(b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}') == "messages"


def test_a_missing_field_is_named() -> None:
    assert refused(b'{"messages":[{"role":"user","content":"x"}]}') == "model"
    assert refused(b'{"model":"m"}') == "messages"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"messages":[' + b",".join([b'{"role":"user","content":"x"}'] * 10_001) + b"]}", "messages"),
        (
            b'{"messages":[{"role":"user","content":[' + b",".join([b'{"type":"text","text":""}'] * 10_001) + b"]}]}",
            "messages",
        ),
        (b'{"messages":[{"role":"user","content":"x"}],"tools":[' + b",".join([b"{}"] * 1025) + b"]}", "tools"),
        (b"{" + b",".join(b'"k%d":1' % number for number in range(257)) + b"}", "body"),
    ],
    ids=["messages", "parts", "tools", "members"],
)
def test_what_would_hold_up_other_callers_is_refused(body: bytes, field: str) -> None:
    assert refused(body) == field


def test_an_error_repeats_only_a_little_of_what_the_caller_sent() -> None:
    with pytest.raises(FieldInvalid) as caught:
        decode(messages=[{"role": "w" * 10**6, "content": "x"}])
    assert len(str(caught.value)) < 300


def test_text_as_the_only_modality_and_no_log_probabilities_are_accepted() -> None:
    assert decode(modalities=["text"], logprobs=False, n=1).question.prompt.options == chat_pb2.GenerationOptions()


def test_a_stream_may_ask_for_usage() -> None:
    asked = decode(stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    assert (asked.stream, asked.include_usage) == (True, True)


def test_the_short_form_needs_a_prompt_only() -> None:
    asked = decode(b'{"prompt":"Explain quantum computing in simple terms","stream":false}')
    assert asked.short
    assert asked.question.prompt.model == "small"
    assert asked.question.prompt.messages[0].content[0].text == "Explain quantum computing in simple terms"


def test_the_short_form_takes_a_model_and_options() -> None:
    asked = decode(b'{"prompt":"x","model":"m","temperature":1,"top_k":5}')
    assert (asked.question.prompt.model, asked.question.prompt.options.temperature) == ("m", 1)


@pytest.mark.parametrize("body", [b'{"prompt":5}', b'{"prompt":""}', b'{"prompt":"x","messages":[]}'])
def test_a_short_form_without_one_clear_text_is_refused(body: bytes) -> None:
    assert refused(body) == "prompt"


def test_the_body_says_how_the_cache_may_be_used() -> None:
    wishes = {"no_cache": True, "ttl_seconds": 60, "max_age_seconds": 5, "semantic": False, "pieces_per_second": 0}
    asked = decode(llmmesh={"cache": wishes}, stream=True)
    meant = CacheControl(reads=False, ttl_seconds=60, max_age_seconds=5, semantic=False, pieces_per_second=0)
    assert asked.question.cache == meant
    assert not asked.question.prompt.options.extra_json
    assert decode(llmmesh={"cache": wishes}).question.cache.pieces_per_second is None


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("llmmesh.cache.ttl_seconds", {"cache": {"ttl_seconds": 0}}),
        ("llmmesh.cache.ttl_seconds", {"cache": {"ttl_seconds": "1h"}}),
        ("llmmesh.cache.max_age_seconds", {"cache": {"max_age_seconds": -1}}),
        ("llmmesh.cache.no_store", {"cache": {"no_store": "yes"}}),
        ("llmmesh.cache", {"cache": {"nocache": True}}),
        ("llmmesh", {"cash": {}}),
        ("llmmesh", True),
    ],
)
def test_a_mistaken_wish_about_the_cache_is_named(field: str, said: Any) -> None:
    assert refused(llmmesh=said) == field
