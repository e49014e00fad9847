"""Providers fail: before the first token the next one answers, after it the stream says so."""

from __future__ import annotations

import openai
import orjson
import pytest

from tests.support.fix_mesh import Tenant, eventually
from tests.support.scripted_provider import ScriptedProvider

HELLO = [{"role": "user", "content": "hello"}]


async def test_the_cheaper_provider_is_asked_first(
    tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    await tenant.chat("Who is cheaper?")
    assert (first.counters.requests, second.counters.requests) == (1, 0)


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_a_provider_that_fails_before_the_first_token_is_not_noticed(
    tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider, status: int
) -> None:
    first.set(fail_next=1, fail_status=status)
    answer = await tenant.chat(f"Survive {status}.")
    assert answer.status_code == 200
    assert answer.headers["x-llmmesh-provider"] == "second"


async def test_a_provider_that_answers_with_a_web_page_is_not_noticed(
    tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    first.set(html=True)
    assert (await tenant.chat("Survive HTML.")).headers["x-llmmesh-provider"] == "second"


async def test_when_all_fail_the_caller_gets_503_and_nothing_is_billed(
    tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    first.set(fail_next=-1)
    second.set(fail_next=-1)
    answer = await tenant.chat("Nobody is there.")
    assert answer.status_code in {502, 503}
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["code"] == "provider_unavailable"
    assert "scripted failure" not in answer.text

    async def nothing_owed() -> bool:
        budget = (await tenant.admin_get("/budget"))["budget"]
        return int(budget.get("spent_micros", "0")) + int(budget.get("reserved_micros", "0")) == 0

    await eventually(nothing_owed)


async def test_a_request_the_provider_refuses_is_the_callers_fault_and_is_not_tried_elsewhere(
    tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    first.set(fail_next=1, fail_status=400)
    with pytest.raises(openai.BadRequestError):
        await tenant.openai.chat.completions.create(model="scripted", messages=HELLO)
    assert second.counters.requests == 0


async def test_a_stream_that_breaks_after_the_first_token_ends_with_an_error_event(
    tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    first.set(cut_after_chunks=3, tokens_per_second=100)
    answer = await tenant.chat("Break me.", stream=True)
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert answer.status_code == 200
    assert orjson.loads(events[-1])["error"]["code"] == "provider_stream_broken"
    assert "[DONE]" not in answer.text
    assert second.counters.requests == 0
    (row,) = await tenant.usage(rows=1)
    assert row["usage"]["estimated"] is True


async def test_the_official_client_raises_on_a_broken_stream(tenant: Tenant, first: ScriptedProvider) -> None:
    first.set(cut_after_chunks=3, tokens_per_second=100)
    stream = await tenant.openai.chat.completions.create(model="scripted", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass


async def test_a_whole_answer_that_breaks_is_a_502_or_503(tenant: Tenant, first: ScriptedProvider) -> None:
    first.set(cut_after_chunks=3, tokens_per_second=100)
    answer = await tenant.chat("Break me whole.")
    assert answer.status_code in {502, 503}
