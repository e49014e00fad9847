"""What GigaChat's API v2 adds to the first: content in parts, thoughts, tools that may be required of several."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from services.router.providers.provider import FailureKind, ProviderFailure
from tests.support.provider_cases import BY_NAME, PUBLIC, Authority, Opened, answer, opened, question

TOOL = '{"type":"function","function":{"name":"forecast","strict":true,"parameters":{"type":"object"}}}'
OTHER = '{"type":"function","function":{"name":"clock"}}'
USAGE = {"input_tokens": 17, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 3, "total_tokens": 20}


@pytest.fixture
async def gigachat(authority: Authority) -> AsyncIterator[Opened]:
    async with opened(BY_NAME["gigachat_v2"], authority) as running:
        yield running


def events(*told: Mapping[str, Any]) -> str:
    """A stream of these events; the names of events say nothing their data does not."""
    return "".join(f"event: response.some.thing\ndata: {orjson.dumps(each).decode()}\n\n" for each in told)


async def test_answers_alone_are_asked_of_version_2(gigachat):
    await answer(gigachat.chat, question())
    await gigachat.embedder.embed(["fox"], PUBLIC)
    asked = [request.path for request in gigachat.server.requests]
    assert asked == ["/api/v2/oauth", "/api/v2/chat/completions", "/api/v1/embeddings"]


async def test_options_stand_with_the_models_and_what_it_has_no_word_for_is_not_sent(gigachat):
    extras = {
        "reasoning_effort": '"high"',
        "repetition_penalty": "1.1",
        "profanity_check": "false",
        "filter_config": '{"response_content":{"blacklist":true}}',
        "storage": "{}",
        "logprobs": "true",
    }
    await answer(gigachat.chat, question(seed=7, user="u", temperature=0, max_output_tokens=50, extra_json=extras))
    assert gigachat.sent == {
        "model": "model-of-theirs",
        "messages": [{"role": "user", "content": [{"text": "Tell me about foxes"}]}],
        "stream": True,
        "model_options": {
            "top_p": 0,
            "max_tokens": 50,
            "repetition_penalty": 1.1,
            "reasoning": {"effort": "high"},
        },
        "disable_filter": True,
        "filter_config": {"response_content": {"blacklist": True}},
    }


@pytest.mark.parametrize("effort", ["none", "minimal"])
async def test_no_thinking_is_asked_for_by_not_asking_for_it(gigachat, effort):
    await answer(gigachat.chat, question(extra_json={"reasoning_effort": f'"{effort}"'}))
    assert "model_options" not in gigachat.sent


async def test_thoughts_come_apart_from_what_is_said(gigachat):
    gigachat.server.set(reasoning="hm let me see")
    said = await answer(gigachat.chat, question())
    assert (said.reasoning, said.text) == ("hm let me see", gigachat.server.script.reply)


async def test_one_of_several_tools_may_be_required(gigachat):
    said = await answer(gigachat.chat, question(tools_json=[TOOL, OTHER], tool_choice_json='"required"'))
    assert gigachat.sent["tool_config"] == {"mode": "any", "functions_names_any": ["forecast", "clock"]}
    assert len(said.calls) == 1


async def test_a_result_comes_with_its_call_and_the_state_of_both(gigachat):
    (call,) = (await answer(gigachat.chat, question(tools_json=[TOOL]))).calls
    assert len(call.id) <= 40, "longer ids are refused elsewhere"
    prompt = question(tools_json=[TOOL])
    prompt.messages.add(
        role=chat_pb2.ROLE_ASSISTANT, tool_calls=[call], content=[chat_pb2.ContentPart(text="Let me look.")]
    )
    prompt.messages.add(role=chat_pb2.ROLE_TOOL, tool_call_id=call.id, content=[chat_pb2.ContentPart(text="sunny")])
    await answer(gigachat.chat, prompt)
    _, asked, result = gigachat.sent["messages"]
    assert asked["content"] == [
        {"text": "Let me look."},
        {"function_call": {"name": "forecast", "arguments": {"city": "Paris", "days": 3}}},
    ]
    assert (result["role"], result["content"]) == (
        "tool",
        [{"function_result": {"name": "forecast", "result": {"result": "sunny"}}}],
    )
    assert asked["tools_state_id"] == result["tools_state_id"] == call.id.removeprefix("fs_")


@pytest.mark.parametrize("field", ["tools_state_id", "tool_state_id"])
async def test_the_state_of_a_call_may_be_told_after_it(gigachat, field):
    called = {"messages": [{"role": "assistant", "function_call": {"name": "forecast", "arguments": {"day": 1}}}]}
    gigachat.server.set(verbatim=events(called, {"finish_reason": "function_call", field: "state-1"}, {"usage": USAGE}))
    said = await answer(gigachat.chat, question(tools_json=[TOOL]))
    assert [(call.id, call.name, call.arguments) for call in said.calls] == [("fs_state-1", "forecast", '{"day":1}')]
    assert said.ended.finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS


async def test_several_calls_of_one_answer_are_told_apart(gigachat):
    calls = [{"function_call": {"name": name, "arguments": {}}} for name in ("forecast", "clock")]
    message = {"role": "assistant", "content": calls, "tools_state_id": "state-1", "finish_reason": "function_call"}
    gigachat.server.set(verbatim=events({"messages": [message]}))
    said = await answer(gigachat.chat, question(tools_json=[TOOL, OTHER]))
    assert [call.name for call in said.calls] == ["forecast", "clock"]
    assert said.calls[0].id == "fs_state-1" != said.calls[1].id


async def test_content_may_be_a_text_and_tools_of_its_own_are_passed_over(gigachat):
    working = {"messages": [{"content": [{"tool_execution": {"name": "web_search", "status": "success"}}]}]}
    spoken = {"messages": [{"role": "assistant", "content": "Hello"}]}
    gigachat.server.set(verbatim=events(working, spoken, {"finish_reason": "stop"}))
    assert (await answer(gigachat.chat, question())).text == "Hello"


@pytest.mark.parametrize(("precached", "fresh"), [("beside", 17), ("inside", 15)])
async def test_cached_tokens_stand_beside_the_input_or_inside(authority, precached, fresh):
    async with opened(BY_NAME["gigachat_v2"], authority, precached=precached) as gigachat:
        gigachat.server.set(verbatim=events({"finish_reason": "stop", "usage": USAGE}))
        usage = (await answer(gigachat.chat, question())).ended.usage
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (fresh, 2, 3)


@pytest.mark.parametrize("told", [{"finish_reason": "error"}, {"error": {"message": "secret words"}}])
async def test_an_answer_that_ends_in_an_error_is_a_failure(gigachat, told):
    gigachat.server.set(verbatim=events(told))
    with pytest.raises(ProviderFailure) as caught:
        await answer(gigachat.chat, question())
    assert caught.value.kind is FailureKind.UNAVAILABLE
    assert "secret" not in str(caught.value) + caught.value.public
