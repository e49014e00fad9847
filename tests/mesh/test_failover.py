"""Providers fail: before the first token the next one answers, after it the stream says so."""

from __future__ import annotations

from typing import Any

import openai
import orjson
import pytest

from tests.support.fix_mesh import Tenant, eventually
from tests.support.scripted_provider import ScriptedProvider

HELLO = [{"role": "user", "content": "hello"}]
BREAKS: dict[str, Any] = {"cut_after_chunks": 8, "tokens_per_second": 10}
"""The break comes long after the first token: a mesh short of CPU has read that one by then."""


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


async def audited(tenant: Tenant) -> dict[str, Any]:
    """The newest audit record, once it is written."""

    async def events() -> list[dict[str, Any]]:
        return list((await tenant.admin_get("/audit")).get("events", []))

    await eventually(events)
    return (await events())[0]


async def test_the_audit_log_names_who_did_not_answer_and_by_which_routes_and_price(
    tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    first.set(fail_next=1, fail_status=503)
    await tenant.chat("Who was asked in vain?")
    event = await audited(tenant)
    (attempt,) = event["attempts"]
    assert attempt["deployment"] != event["deployment"]
    assert attempt["reason"].startswith("PROVIDER_")
    assert len(event["routes_version"]) == 16
    assert event["price_time"]


async def test_the_audit_log_names_everyone_who_did_not_answer_when_nobody_did(
    tenant: Tenant, first: ScriptedProvider, second: ScriptedProvider
) -> None:
    first.set(fail_next=-1)
    second.set(fail_next=-1)
    await tenant.chat("Nobody is there, says the log.")
    event = await audited(tenant)
    assert event["outcome"] == "failed"
    assert {attempt["deployment"] for attempt in event["attempts"]} == set(event["candidates"])


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
    first.set(**BREAKS)
    answer = await tenant.chat("Break me.", stream=True)
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert answer.status_code == 200
    assert orjson.loads(events[-1])["error"]["code"] == "provider_stream_broken"
    assert "[DONE]" not in answer.text
    assert second.counters.requests == 0
    (row,) = await tenant.usage(rows=1)
    assert row["usage"]["estimated"] is True


async def test_the_official_client_raises_on_a_broken_stream(tenant: Tenant, first: ScriptedProvider) -> None:
    first.set(**BREAKS)
    stream = await tenant.openai.chat.completions.create(model="scripted", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass


async def test_a_whole_answer_that_breaks_is_a_502_or_503(tenant: Tenant, first: ScriptedProvider) -> None:
    first.set(**BREAKS)
    answer = await tenant.chat("Break me whole.")
    assert answer.status_code in {502, 503}, answer.headers
