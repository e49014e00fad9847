"""A prompt as OpenAI's JSON."""

from __future__ import annotations

import re

import orjson

from llmmesh.chat.v1 import chat_pb2
from meshkit.identity import Identity, acting_as
from services.router.providers.openai_request import chat_body, embeddings_body

TOOL = '{"type": "function",\n "function": {"name": "f", "parameters": {"b": 1.0, "a": 12345678901234567890}}}'
FORMAT = '{"type":"json_schema","json_schema":{"z":1e2,"a":null}}'


def user(*parts: chat_pb2.ContentPart) -> chat_pb2.ChatMessage:
    return chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=parts)


def text(words: str) -> chat_pb2.ContentPart:
    return chat_pb2.ContentPart(text=words)


def test_json_of_the_caller_is_spliced_in_byte_for_byte(deployment):
    options = chat_pb2.GenerationOptions(
        tools_json=[TOOL],
        tool_choice_json='{"type" : "function"}',
        response_format_json=FORMAT,
        extra_json={"top_k": "40.0", "metadata": '{"ид" : 1}'},
    )
    body = chat_body(chat_pb2.ChatPrompt(messages=[user(text("hi"))], options=options), deployment()).decode()
    assert f'"tools":[{TOOL}]' in body
    assert f'"response_format":{FORMAT}' in body
    assert '"tool_choice":{"type" : "function"}' in body
    assert '"top_k":40.0' in body
    assert '"metadata":{"ид" : 1}' in body


def test_extras_cannot_change_who_answers_or_what_it_costs(deployment):
    extras = dict.fromkeys(["model", "messages", "stream", "n", "max_tokens", "max_completion_tokens"], '"evil"')
    prompt = chat_pb2.ChatPrompt(messages=[user(text("hi"))], options=chat_pb2.GenerationOptions(extra_json=extras))
    assert orjson.loads(chat_body(prompt, deployment())) == {
        "model": "m-2",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_unset_options_are_left_out_and_zeros_are_sent(deployment):
    options = chat_pb2.GenerationOptions(temperature=0, seed=0, max_output_tokens=5, stop=["END"])
    body = orjson.loads(chat_body(chat_pb2.ChatPrompt(options=options), deployment()))
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 0, 5)
    assert body["stop"] == ["END"]
    assert "top_p" not in body
    assert "user" not in body


def test_an_end_user_is_known_by_a_hash_of_its_own_in_each_tenant(deployment):
    def known_as(user: str, tenant: str) -> str:
        prompt = chat_pb2.ChatPrompt(options=chat_pb2.GenerationOptions(user=user))
        with acting_as(Identity(tenant_id=tenant)):
            return orjson.loads(chat_body(prompt, deployment()))["user"]

    ada = known_as("ada@example.org", "acme")
    assert re.fullmatch("[0-9a-f]{64}", ada)
    assert known_as("ada@example.org", "acme") == ada
    assert len({ada, known_as("bob@example.org", "acme"), known_as("ada@example.org", "other")}) == 3


def test_the_token_limit_takes_the_word_the_endpoint_knows(deployment):
    prompt = chat_pb2.ChatPrompt(options=chat_pb2.GenerationOptions(max_output_tokens=5))
    body = orjson.loads(chat_body(prompt, deployment(max_tokens_field="max_completion_tokens", include_usage=False)))
    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body
    assert "stream_options" not in body


def test_every_kind_of_message_has_its_shape(deployment):
    call = chat_pb2.ToolCall(id="c1", name="f", arguments='{"a":1}')
    image = chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url="https://x/y.png", detail="low"))
    sound = chat_pb2.ContentPart(raw_json='{"type":"input_audio","input_audio":{"data":""}}')
    prompt = chat_pb2.ChatPrompt(
        messages=[
            chat_pb2.ChatMessage(role=chat_pb2.ROLE_DEVELOPER, content=[text("be brief")]),
            chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[text("see"), image, sound], name="ann"),
            chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[call]),
            chat_pb2.ChatMessage(role=chat_pb2.ROLE_TOOL, content=[text("42")], tool_call_id="c1"),
        ]
    )
    assert orjson.loads(chat_body(prompt, deployment()))["messages"] == [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": ""}},
            ],
            "name": "ann",
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]


def test_texts_are_embedded_as_floats(deployment):
    assert orjson.loads(embeddings_body(["a", "b"], deployment())) == {
        "model": "m-2",
        "input": ["a", "b"],
        "encoding_format": "float",
    }
