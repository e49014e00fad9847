"""Answers that the mesh ends by itself: what may not be said, what only repeats, what may cost no more."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.support.fix_mesh import Tenant, eventually
from tests.support.scripted_provider import ScriptedProvider

CARD = "4111 1111 1111 1111"


async def streamed(tenant: Tenant, text: str, headers: dict[str, str] | None = None, **more: Any) -> list[Any]:
    """The chunks of a streamed answer."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": text}], "stream": True, **more}
    url = "/v1/chat/completions"
    answer = await tenant.mesh.http.post(url, headers={**tenant.headers, **(headers or {})}, json=body)
    assert answer.status_code == 200, answer.text
    lines = (line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {"))
    return [json.loads(line) for line in lines]


def reason(chunks: list[Any]) -> str:
    return str(next(chunk["choices"][0]["finish_reason"] for chunk in reversed(chunks) if chunk["choices"]))


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


async def test_a_card_stops_the_provider_within_one_chunk(tenant: Tenant, first: ScriptedProvider) -> None:
    first.set(reply=f"My card is {CARD} and " + "more " * 500, tokens_per_second=10)
    chunks = await streamed(tenant, "Card?", max_tokens=400)
    assert (reason(chunks), text_of(chunks)) == ("content_filter", "My card is ")
    await first.until(lambda now: now.aborted_streams == 1)
    (row,) = await tenant.usage(rows=1)
    said = row["usage"]["output_tokens"]
    # "and" shows that the number has ended; at most one word more was under way.
    assert said <= 25


async def test_an_answer_that_only_repeats_itself_ends_as_one_that_is_too_long(
    tenant: Tenant, first: ScriptedProvider
) -> None:
    first.set(reply="I am sorry, I am sorry. " * 3000)
    chunks = await streamed(tenant, "What do you want to say?", max_tokens=20_000)
    assert reason(chunks) == "length"
    assert text_of(chunks).startswith("I am sorry, I am sorry. ")
    assert 4000 < len(text_of(chunks)) < 20_000
    (row,) = await tenant.usage(rows=1)
    assert row["finish_reason"] == "FINISH_REASON_LENGTH"

    async def stopped() -> list[Any]:
        events = (await tenant.admin_get("/audit")).get("events", [])
        return [event for event in events if event["outcome"] == "stopped"]

    (event,) = await eventually(stopped)
    assert "answer.repetition" in event["guard_rules"]


async def test_an_answer_is_as_long_as_its_caller_pays_for(tenant: Tenant, first: ScriptedProvider) -> None:
    first.set(reply_tokens=2000)
    asked: Any = {"model": "scripted", "messages": [{"role": "user", "content": "How much?"}], "max_tokens": 1000}
    whole = await tenant.openai.chat.completions.create(**asked)
    full_price = whole.model_extra["llmmesh"]["cost"]
    limit = round(full_price / 2, 6)
    by_body = await tenant.openai.chat.completions.create(**asked, extra_body={"llmmesh": {"max_cost": limit}})
    by_header = await tenant.openai.chat.completions.create(
        **asked, extra_headers={"x-llmmesh-max-cost": f"{limit:.6f}", "cache-control": "no-cache"}
    )
    for cut in (by_body, by_header):
        assert cut.choices[0].finish_reason == "length"
        assert cut.usage.completion_tokens < whole.usage.completion_tokens
        assert cut.model_extra["llmmesh"]["stopped_for"] == "cost"
        assert 0 < cut.model_extra["llmmesh"]["cost"] <= limit
    rows = await tenant.usage(rows=3)
    assert sorted(row.get("stop", "") for row in rows) == ["", "cost", "cost"]
    with pytest.raises(openai.BadRequestError) as refused:
        await tenant.openai.chat.completions.create(**asked, extra_headers={"x-llmmesh-max-cost": "0.000001"})
    assert (refused.value.code, refused.value.param) == ("max_cost_exceeded", "max_cost")


async def test_a_tenant_can_be_held_to_it(tenant: Tenant, first: ScriptedProvider) -> None:
    first.set(reply_tokens=2000)
    frugal = await tenant.mesh.tenant(max_cost_micros="1")
    answer = await frugal.chat("May I?")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "max_cost_exceeded")
    wrong = {"tenant_id": "never-made", "budget_limit_micros": "1", "policy": {"max_cost_micros": "-1"}}
    refused = await tenant.mesh.http.post("/v1/tenants", headers=tenant.mesh.admin, json=wrong)
    assert refused.json()["error"]["param"] == "policy.max_cost_micros"
