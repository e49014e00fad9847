"""The scripted provider speaks OpenAI's API well enough for OpenAI's own client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from tests.support.scripted_provider import ScriptedProvider, scripted_provider

QUESTION = [{"role": "user", "content": "Tell me about foxes"}]
TOOL = {"type": "function", "function": {"name": "forecast", "parameters": {"type": "object"}}}


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with scripted_provider() as running:
        yield running


@pytest.fixture
async def client(provider: ScriptedProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as opened:
        yield opened


async def test_a_whole_answer_carries_its_usage(client, provider):
    answer = await client.chat.completions.create(model="m", messages=QUESTION)
    assert answer.choices[0].message.content == provider.script.reply
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 9)


async def test_a_stream_says_the_same_and_ends_with_the_usage(client, provider):
    stream = await client.chat.completions.create(
        model="m", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == provider.script.reply
    assert chunks[-1].usage.completion_tokens == 9
    assert chunks[-2].choices[0].finish_reason == "stop"


async def test_max_tokens_cuts_the_answer(client):
    answer = await client.chat.completions.create(model="m", messages=QUESTION, max_tokens=2)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("The quick", "length")


async def test_tools_are_called_in_both_shapes(client, provider):
    answer = await client.chat.completions.create(model="m", messages=QUESTION, tools=[TOOL])
    assert answer.choices[0].message.tool_calls[0].function.arguments == provider.script.tool_arguments
    async with client.chat.completions.stream(model="m", messages=QUESTION, tools=[TOOL]) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "forecast"
    assert final.choices[0].message.tool_calls[0].function.arguments == provider.script.tool_arguments


async def test_equal_texts_have_equal_vectors(client):
    answer = await client.embeddings.create(model="e", input=["fox", "dog", "fox"])
    fox, dog, again = (row.embedding for row in answer.data)
    assert len(fox) == 8
    assert fox == again != dog


async def test_failures_are_raised_as_the_clients_own_errors(client, provider):
    provider.set(fail_next=1, fail_status=429, retry_after="7", error_code="rate_limit_exceeded")
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="m", messages=QUESTION)
    assert caught.value.response.headers["retry-after"] == "7"
    await client.chat.completions.create(model="m", messages=QUESTION)
    assert (provider.counters.failed, provider.counters.requests) == (1, 2)


async def test_hanging_up_is_counted_as_an_aborted_stream(client, provider):
    provider.set(stall_after_chunks=1)
    stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
    await provider.until(lambda now: now.open_streams == 1)
    await stream.close()
    await provider.until(lambda now: now.aborted_streams == 1 and now.open_streams == 0)


async def test_a_cut_stream_ends_without_its_last_chunk(client, provider):
    provider.set(cut_after_chunks=2)
    stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
    with pytest.raises(openai.APIConnectionError):
        [chunk async for chunk in stream]


async def test_it_is_controlled_over_http(provider):
    async with httpx.AsyncClient(base_url=provider.base_url.removesuffix("/v1")) as http:
        state = (await http.post("/control", json={"reply": "hi", "ttft_ms": 1})).json()
        assert (state["script"]["reply"], provider.script.ttft_ms) == ("hi", 1)
        waiting = asyncio.create_task(http.get("/control", params={"wait": "requests>=1"}))
        await http.post("/v1/chat/completions", json={"model": "m", "messages": QUESTION})
        answered = (await waiting).json()
        assert answered["counters"]["requests"] == 1
        assert "Tell me about foxes" in answered["requests"][0]["body"]
        assert (await http.post("/control", json={"colour": 1})).status_code == 400
        assert (await http.post("/control", json={"reset": True})).json()["counters"]["requests"] == 0


async def test_it_runs_alone():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.scripted_provider", "--port", "0", "--reply", "alone",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        async with httpx.AsyncClient(base_url=line.decode().split()[-1]) as http:
            answer = await http.post("/chat/completions", json={"model": "m", "messages": QUESTION})
        assert answer.json()["choices"][0]["message"]["content"] == "alone"
    finally:
        process.kill()
        await process.wait()
