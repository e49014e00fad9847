"""What GigaChat alone has: tokens, turns, functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from services.router.providers.provider import FailureKind, ProviderFailure
from tests.support.provider_cases import (
    BY_NAME,
    PUBLIC,
    SECRET,
    Authority,
    Opened,
    answer,
    conversation,
    opened,
    question,
)

TOOL = '{"type":"function","function":{"name":"forecast","strict":true,"parameters":{"type":"object"}}}'
OTHER = '{"type":"function","function":{"name":"clock"}}'


@pytest.fixture
async def gigachat(authority: Authority) -> AsyncIterator[Opened]:
    async with opened(BY_NAME["gigachat"], authority) as running:
        yield running


async def failure(gigachat: Opened, prompt: chat_pb2.ChatPrompt | None = None) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await answer(gigachat.chat, prompt or question())
    return caught.value


def calling(*results: tuple[str, str, str]) -> chat_pb2.ChatPrompt:
    """A conversation in which the assistant called functions: id, name, result."""
    prompt = question(tools_json=[TOOL, OTHER])
    calls = [chat_pb2.ToolCall(id=call_id, name=name, arguments='{"day":1}') for call_id, name, _ in results]
    prompt.messages.add(role=chat_pb2.ROLE_ASSISTANT, tool_calls=calls)
    for call_id, _, result in results:
        content = [chat_pb2.ContentPart(text=result)]
        prompt.messages.add(role=chat_pb2.ROLE_TOOL, tool_call_id=call_id, content=content)
    return prompt


async def test_a_token_is_kept_while_it_is_good(gigachat):
    await answer(gigachat.chat, question())
    await answer(gigachat.chat, question())
    await gigachat.embedder.embed(["fox"], PUBLIC)
    assert gigachat.server.counters.tokens_issued == 1


async def test_a_token_is_renewed_a_minute_before_it_ends(gigachat):
    gigachat.server.set(token_seconds=59)
    await answer(gigachat.chat, question())
    await answer(gigachat.chat, question())
    assert gigachat.server.counters.tokens_issued == 2


async def test_a_token_about_to_end_serves_while_there_is_no_other(gigachat):
    gigachat.server.set(token_seconds=59)
    await answer(gigachat.chat, question())
    gigachat.server.set(token_status=503)
    assert (await answer(gigachat.chat, question())).text
    assert gigachat.server.counters.tokens_issued == 2


async def test_a_token_refused_in_the_middle_of_its_life_is_replaced_once(gigachat):
    await answer(gigachat.chat, question())
    gigachat.server.token = "revoked"
    said = await asyncio.gather(*(answer(gigachat.chat, question()) for _ in range(4)))
    assert {each.text for each in said} == {gigachat.server.script.reply}
    assert gigachat.server.counters.tokens_issued == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, FailureKind.CREDENTIAL), (400, FailureKind.CREDENTIAL), (429, FailureKind.THROTTLED)],
)
async def test_an_issuer_that_refuses_is_a_failure_that_gives_nothing_away(gigachat, status, kind):
    gigachat.server.set(token_status=status, retry_after="3")
    failed = await failure(gigachat)
    assert failed.kind is kind
    assert failed.retry_after_seconds == 3
    assert SECRET not in str(failed) + failed.public
    assert gigachat.server.counters.requests == 0


async def test_the_state_of_functions_comes_back_with_the_result(gigachat):
    said = await answer(gigachat.chat, question(tools_json=[TOOL]))
    (call,) = said.calls
    assert len(call.id) <= 40, "longer ids are refused elsewhere"
    await answer(gigachat.chat, calling((call.id, "forecast", '{"sky":"blue"}')))
    _, asked, result = gigachat.sent["messages"]
    assert asked["function_call"] == {"name": "forecast", "arguments": {"day": 1}}
    assert call.id.endswith(asked["functions_state_id"])
    assert result == {"role": "function", "name": "forecast", "content": '{"sky":"blue"}'}


async def test_several_calls_of_one_turn_become_one_after_the_other(gigachat):
    await answer(gigachat.chat, calling(("a", "forecast", "sunny"), ("b", "clock", "12")))
    told = [(message["role"], message.get("name", "")) for message in gigachat.sent["messages"][1:]]
    assert told == [("assistant", ""), ("function", "forecast"), ("assistant", ""), ("function", "clock")]
    assert [orjson.loads(gigachat.sent["messages"][at]["content"]) for at in (2, 4)] == [
        {"result": "sunny"},
        {"result": 12},
    ]


async def test_a_result_without_its_call_is_the_requests_fault(gigachat):
    prompt = question()
    prompt.messages.add(role=chat_pb2.ROLE_TOOL, tool_call_id="x", content=[chat_pb2.ContentPart(text="{}")])
    failed = await failure(gigachat, prompt)
    assert failed.kind is FailureKind.REFUSED
    assert "tool_call_id" in failed.public


async def test_one_tool_may_be_required_but_not_one_of_several(gigachat):
    await answer(gigachat.chat, question(tools_json=[TOOL], tool_choice_json='"required"'))
    assert gigachat.sent["function_call"] == {"name": "forecast"}
    failed = await failure(gigachat, question(tools_json=[TOOL, OTHER], tool_choice_json='"required"'))
    assert (failed.kind, "tool_choice" in failed.public) == (FailureKind.NOT_FOUND, True)


async def test_what_it_has_no_word_for_is_not_sent(gigachat):
    extras = {"logprobs": "true", "storage": '{"is_stateful":true}', "repetition_penalty": "1.1"}
    await answer(gigachat.chat, question(seed=7, user="u", presence_penalty=1, temperature=0, extra_json=extras))
    assert gigachat.sent.keys() == {"model", "messages", "stream", "top_p", "repetition_penalty"}
    assert gigachat.sent["top_p"] == 0


async def test_instructions_become_one_message_at_the_beginning(gigachat):
    prompt = conversation(
        (chat_pb2.ROLE_USER, "Hello"), (chat_pb2.ROLE_SYSTEM, "Be brief."), (chat_pb2.ROLE_DEVELOPER, "Be polite.")
    )
    await answer(gigachat.chat, prompt)
    assert gigachat.sent["messages"] == [
        {"role": "system", "content": "Be brief.\n\nBe polite."},
        {"role": "user", "content": "Hello"},
    ]


async def test_an_image_is_beyond_it(gigachat):
    prompt = question()
    prompt.messages[0].content.add(image_url=chat_pb2.ImageUrl(url="https://x/y.png"))
    assert (await failure(gigachat, prompt)).kind is FailureKind.NOT_FOUND


async def test_an_answer_that_ends_in_an_error_is_a_failure(gigachat):
    gigachat.server.set(finish_reason="error")
    assert (await failure(gigachat)).kind is FailureKind.UNAVAILABLE


async def test_cached_tokens_may_be_told_inside_the_prompts(authority):
    async with opened(BY_NAME["gigachat"], authority, precached="inside") as gigachat:
        gigachat.server.set(
            verbatim='data: {"choices":[{"delta":{"content":"Hello."},"index":0,"finish_reason":"stop"}],"usage":'
            '{"prompt_tokens":17,"completion_tokens":3,"total_tokens":20,"precached_prompt_tokens":2}}\n\n'
        )
        usage = (await answer(gigachat.chat, question())).ended.usage
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (15, 2, 3)


async def test_no_more_answers_at_once_than_the_credential_may_have(authority):
    async with opened(BY_NAME["gigachat"], authority, concurrency=1, queue_seconds=0.05) as gigachat:
        gigachat.server.set(stall_after_chunks=1)
        async with aclosing(gigachat.chat.stream_chat(question(), PUBLIC)) as events:
            await anext(events)
            failed = await failure(gigachat)
            assert failed.kind is FailureKind.BUSY
            assert failed.kind.is_of_the_request, "its breaker stays closed"
            with pytest.raises(ProviderFailure):
                await gigachat.embedder.embed(["fox"], PUBLIC)
            assert gigachat.server.counters.requests == 1
        gigachat.server.set(stall_after_chunks=-1)
        assert (await answer(gigachat.chat, question())).text


async def test_who_waits_for_a_turn_gets_it_when_another_is_done(authority):
    async with opened(BY_NAME["gigachat"], authority, concurrency=2, queue_seconds=5) as gigachat:
        gigachat.server.set(reply_tokens=5, tokens_per_second=200)
        most = 0

        def watch(now: Any) -> bool:
            nonlocal most
            most = max(most, now.open_streams)
            return now.finished_streams == 6

        await asyncio.gather(gigachat.server.until(watch), *(answer(gigachat.chat, question()) for _ in range(6)))
    assert most == 2
