"""Answers that were asked to be JSON: repaired once, refused clearly, billed for all that was said."""

from __future__ import annotations

from typing import Any

import grpc

from tests.support.gateway_room import Front, Tenant

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
RIGHT = '{"city": "Moscow", "people": 13}'
WRONG = '{"city": "Moscow", "people": "many"}'


async def ask(tenant: Tenant, text: str = "A city, please.", **more: Any) -> Any:
    return await tenant.chat(text, **{"response_format": FORMAT, **more})


async def test_an_answer_that_has_the_form_is_asked_for_once(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=RIGHT)
    reply = await ask(tenant)
    assert reply.json["choices"][0]["message"]["content"] == RIGHT
    assert front.first.counters.requests == 1


async def test_a_wrong_answer_is_repaired_and_both_are_billed(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=WRONG, second_reply=RIGHT)
    reply = await ask(tenant)
    assert reply.json["choices"][0]["message"]["content"] == RIGHT
    first, second = front.first.bodies
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == WRONG
    assert 'at /people: the value is not of type "integer"' in second["messages"][2]["content"]
    assert second["response_format"] == first["response_format"]
    rows = await tenant.usage(rows=2)
    assert {row.request_id for row in rows} == {tenant.request_ids[0], f"{tenant.request_ids[0]}-repair"}
    used = sum(row.usage.input_tokens + row.usage.output_tokens for row in rows)
    assert reply.json["usage"]["total_tokens"] == used
    assert round(reply.json["llmmesh"]["cost"] * 1_000_000) == sum(row.cost_micros for row in rows) > 0
    await tenant.nothing_held()


async def test_what_is_wrong_twice_is_an_error_in_openais_shape_and_not_cached(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=WRONG)
    for _ in range(2):
        assert await tenant.failure("Again.", response_format=FORMAT) == (
            grpc.StatusCode.DATA_LOSS,
            "ANSWER_INVALID",
        )
    assert front.first.counters.requests == 4
    assert len(await tenant.usage(rows=4)) == 4
    await tenant.nothing_held()


async def test_a_json_object_is_repaired_too(tenant: Tenant, front: Front) -> None:
    front.first.set(reply="Here you are: {}", second_reply="{}")
    reply = await ask(tenant, response_format={"type": "json_object"})
    assert reply.json["choices"][0]["message"]["content"] == "{}"


async def test_a_wrong_stream_ends_with_an_error_and_without_the_end_mark(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=WRONG, second_reply=RIGHT)
    reply = await ask(tenant, stream=True)
    assert reply.text == WRONG
    assert reply.events[-1]["error"]["code"] == "answer_invalid"
    assert "/people" in reply.events[-1]["error"]["message"]
    assert front.first.counters.requests == 1
    assert len(await tenant.usage(rows=1)) == 1


async def test_a_right_stream_is_as_any_other(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=RIGHT)
    reply = await ask(tenant, stream=True)
    assert (reply.text, reply.events[-1]) == (RIGHT, "[DONE]")


async def test_an_answer_cut_by_its_limit_says_so_and_is_not_asked_for_again(tenant: Tenant, front: Front) -> None:
    front.first.set(reply=RIGHT)
    reply = await ask(tenant, max_tokens=2)
    assert reply.json["choices"][0]["finish_reason"] == "length"
    assert front.first.counters.requests == 1


async def test_a_repair_without_money_is_refused_and_nothing_stays_held(front: Front) -> None:
    # Both answers are reserved at their worst; the first leaves too little for the second.
    poor = await front.tenant(rubles=0.1)
    front.first.set(reply=WRONG, second_reply=RIGHT)
    failure = await poor.failure("A city.", response_format=FORMAT, max_tokens=16)
    assert failure == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED")
    assert len(await poor.usage(rows=1)) == 1
    await poor.nothing_held()


async def test_a_schema_that_is_none_is_refused_before_anybody_is_asked(tenant: Tenant, front: Front) -> None:
    wrong = {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}
    failure = await tenant.failure("A city.", response_format=wrong)
    assert failure == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert front.first.counters.requests == 0
