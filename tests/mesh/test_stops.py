"""Answers that the mesh ends by itself: what may not be said, what only repeats."""

from __future__ import annotations

import json
from typing import Any

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
