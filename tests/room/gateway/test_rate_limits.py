"""Callers that come too fast: told so as OpenAI tells them, held back by all gateways together, through any outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import orjson
import pytest
from google.api import httpbody_pb2
from google.rpc import error_details_pb2

from llmmesh.gateway.v1 import openai_pb2
from llmmesh.tenant.v1 import tenant_pb2
from meshkit.errors import error_info, rpc_status
from meshkit.identity import Identity, acting_as
from tests.support.billing_room import ADMIN
from tests.support.fix_redis import RedisProcess
from tests.support.gateway_room import Front, Tenant, eventually, second_gateway

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


async def limited(front: Front, **limits: Any) -> Tenant:
    """A tenant with rate limits."""
    return await front.tenant(rate_limits=limits)


async def key_of(tenant: Tenant, **more: Any) -> Tenant:
    """The same tenant with a key made for it, once the gateway knows of it."""
    request = tenant_pb2.CreateKeyRequest(tenant_id=tenant.identity.tenant_id, **more)
    with acting_as(ADMIN):
        key = (await tenant.front.billing.tenants.CreateKey(request)).key
    return Tenant(tenant.front, Identity(key.tenant_id, key.id, frozenset({"developer"})), tenant.request_ids)


async def refused(tenant: Tenant, text: str, **more: Any) -> grpc.aio.AioRpcError:
    """The error of a request that came too fast."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tenant.chat(text, **more)
    info = error_info(caught.value)
    assert info is not None
    assert (caught.value.code(), info.reason) == (EXHAUSTED, "RATE_LIMITED"), caught.value
    return caught.value


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return dict(error.trailing_metadata() or ())


async def test_a_tenant_without_limits_is_told_of_none(tenant: Tenant) -> None:
    headers = (await tenant.chat("Hello.")).headers
    assert [name for name in headers if name.startswith("x-ratelimit")] == []


async def test_answers_say_what_is_left_and_the_last_refusal_when_to_come_back(front: Front) -> None:
    tenant = await limited(front, tenant={"requests_per_minute": 2})
    left = [(await tenant.chat(f"Question {n}.")).headers["x-ratelimit-remaining-requests"] for n in range(2)]
    assert left == ["1", "0"]
    error = await refused(tenant, "Question 3.")
    told = trailers(error)
    assert told["x-ratelimit-limit-requests"] == "2"
    assert told["x-ratelimit-remaining-requests"] == "0"
    assert told["x-ratelimit-reset-requests"].endswith("s")
    assert 0 < int(told["retry-after"]) <= 65
    body = orjson.loads(told["x-openai-error"])["error"]
    assert (body["type"], body["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "requests per min (RPM): Limit 2, Used 2, Requested 1. Please try again in" in body["message"]
    retry = error_details_pb2.RetryInfo()
    status = rpc_status(error)
    assert status is not None
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.seconds > 0


async def test_what_is_refused_costs_nothing_and_is_on_record(front: Front) -> None:
    tenant = await limited(front, tenant={"requests_per_minute": 1})
    await tenant.chat("Paid.")
    asked = front.first.counters.requests
    await refused(tenant, "Refused.")
    assert front.first.counters.requests == asked
    await tenant.nothing_held()


async def test_cached_answers_count_as_requests_and_take_no_tokens(front: Front) -> None:
    tenant = await limited(front, tenant={"requests_per_minute": 10, "tokens_per_minute": 1000})

    async def hit() -> dict[str, str] | None:
        headers = (await tenant.chat("The same again.")).headers
        return headers if headers["x-llmmesh-cache"] == "exact" else None

    await tenant.chat("The same again.")
    first = await eventually(hit)
    second = await hit()
    assert second is not None
    assert int(second["x-ratelimit-remaining-requests"]) == int(first["x-ratelimit-remaining-requests"]) - 1
    assert second["x-ratelimit-remaining-tokens"] == first["x-ratelimit-remaining-tokens"]


async def test_tokens_are_counted_as_they_were_used_and_not_as_they_might_have_been(front: Front) -> None:
    tenant = await limited(front, tenant={"tokens_per_minute": 600})
    for n in range(3):
        await tenant.chat(f"Short answers to question {n}.", max_tokens=500)
    error = await refused(tenant, "A long one.", max_tokens=590)
    assert "tokens per min (TPM): Limit 600" in str(error.details())


async def test_a_request_larger_than_the_limit_is_not_asked_to_come_back(front: Front) -> None:
    tenant = await limited(front, tenant={"tokens_per_day": 50})
    told = trailers(await refused(tenant, "Write a book.", max_tokens=100))
    assert "retry-after" not in told
    assert "larger than the limit" in orjson.loads(told["x-openai-error"])["error"]["message"]


async def test_streams_at_once_are_limited_and_a_caller_who_hangs_up_makes_room(front: Front) -> None:
    tenant = await limited(front, tenant={"concurrent_streams": 1})
    front.first.set(stall_after_chunks=3)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Stall."}]}
    stalled = tenant.call(orjson.dumps(body))
    await stalled.read()
    told = trailers(await refused(tenant, "Wait for me."))
    assert told["retry-after"] == "1"
    stalled.cancel()
    front.first.reset()

    async def answered() -> bool:
        try:
            return bool((await tenant.chat("Room at last.")).bodies)
        except grpc.aio.AioRpcError:
            return False

    await eventually(answered)


async def test_one_stream_after_another_is_never_refused(front: Front) -> None:
    tenant = await limited(front, tenant={"concurrent_streams": 1})
    for n in range(10):
        assert (await tenant.chat(f"Story {n}.", stream=True)).events[-1] == "[DONE]"


async def test_embeddings_are_counted_with_chats(front: Front) -> None:
    tenant = await limited(front, tenant={"requests_per_minute": 1})
    await tenant.chat("First.")
    body = {"model": "e", "input": "Second."}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _embed(tenant, body)
    assert caught.value.code() is EXHAUSTED


async def _embed(tenant: Tenant, body: dict[str, Any]) -> Any:
    raw = httpbody_pb2.HttpBody(content_type="application/json", data=orjson.dumps(body))
    request = openai_pb2.CreateEmbeddingRequest(body=raw)
    return await tenant.front.openai.CreateEmbedding(request, metadata=tenant.metadata())


async def test_each_key_team_and_user_is_counted_by_itself(front: Front) -> None:
    one = {"requests_per_minute": 1}
    tenant = await limited(front, tenant={"requests_per_minute": 6}, each_key=one, each_user=one, teams={"red": one})
    ada, bob = await key_of(tenant), await key_of(tenant)
    await ada.chat("Ada's first.")
    assert "for key" in str((await refused(ada, "Ada's second.")).details())
    await bob.chat("Bob's first.")
    roomy = {"rate_limits": {"requests_per_minute": 9}}
    red, also_red = [await key_of(tenant, team_id="red", policy=roomy) for _ in range(2)]
    await _known(red)
    await red.chat("Red's first.")
    assert "for team 'red'" in str((await refused(also_red, "Red's second.")).details())
    carol, carols_other = [await key_of(tenant, user_id="carol", policy=roomy) for _ in range(2)]
    await _known(carols_other)
    await carol.chat("Carol's first.")
    assert "for user 'carol'" in str((await refused(carols_other, "Carol's second.")).details())
    await (await key_of(tenant)).chat("Somebody's first.")
    await (await key_of(tenant)).chat("Somebody's first.")
    assert "for tenant" in str((await refused(await key_of(tenant), "One too many.")).details())


async def _known(tenant: Tenant) -> None:
    """Return once the gateway knows a key that was made a moment ago: a later one comes after it."""
    probe = await key_of(tenant, policy={"allowed_models": ["none"]})

    async def known() -> bool:
        # A request that could not be answered anyway counts nowhere.
        return (await probe.failure("Known?", model="e"))[1] == "MODEL_NOT_ALLOWED"

    await eventually(known)


async def test_gateways_count_together(front: Front) -> None:
    tenant = await limited(front, tenant={"requests_per_minute": 2})
    async with second_gateway(front) as other:
        elsewhere = Tenant(other, tenant.identity, tenant.request_ids)
        await tenant.chat("Here.")
        await elsewhere.chat("There.")
        await refused(tenant, "Here again.")
        await refused(elsewhere, "There again.")


@asynccontextmanager
async def own_redis(front: Front, redis: RedisProcess, **settings: Any) -> AsyncIterator[Front]:
    """Another gateway whose counts are in a Redis that a test may hurt."""
    quick = {"redis_url": redis.url, "limits_timeout_seconds": 0.3, "limits_local_share": 0.5}
    async with second_gateway(front, **quick, **settings) as other:
        yield other


async def test_a_frozen_redis_costs_one_deadline_and_then_a_share_of_the_limit_is_granted(
    front: Front, redis_process: RedisProcess
) -> None:
    made = await limited(front, tenant={"requests_per_minute": 10})
    async with own_redis(front, redis_process) as other:
        tenant = Tenant(other, made.identity, made.request_ids)
        for n in range(3):
            await tenant.chat(f"Counted by Redis {n}.")
        redis_process.freeze()
        try:
            async with asyncio.timeout(5):
                headers = [(await tenant.chat(f"Counted here {n}.")).headers for n in range(2)]
            assert [each["x-ratelimit-limit-requests"] for each in headers] == ["5", "5"]
            assert headers[-1]["x-ratelimit-remaining-requests"] == "0", "what Redis granted counts here too"
            await refused(tenant, "More than the share.")
        finally:
            redis_process.thaw()


async def test_what_was_granted_while_redis_was_away_counts_when_it_is_back(
    front: Front, redis_process: RedisProcess
) -> None:
    made = await limited(front, tenant={"requests_per_minute": 4})
    async with own_redis(front, redis_process) as other:
        tenant = Tenant(other, made.identity, made.request_ids)
        redis_process.kill()
        answers = [await tenant.chat(f"Alone {n}.") for n in range(2)]
        assert answers[-1].headers["x-ratelimit-remaining-requests"] == "0"
        redis_process.start()

        async def granted() -> int:
            try:
                return len((await tenant.chat("Again?")).bodies)
            except grpc.aio.AioRpcError:
                return 0

        assert [await eventually(granted) for _ in range(2)] == [1, 1]
        assert "Limit 4, Used 4" in str((await refused(tenant, "The fifth.")).details())


async def test_counts_are_shared_again_once_redis_is_back(front: Front, redis_process: RedisProcess) -> None:
    made = await limited(front, tenant={"requests_per_minute": 1000, "concurrent_streams": 5})
    async with own_redis(front, redis_process) as other:
        tenant = Tenant(other, made.identity, made.request_ids)
        redis_process.kill()
        assert (await tenant.chat("Alone.")).headers["x-ratelimit-limit-requests"] == "500"
        redis_process.start()

        async def shared() -> bool:
            return (await tenant.chat("Together?")).headers["x-ratelimit-limit-requests"] == "1000"

        await eventually(shared)


async def test_a_gateway_without_redis_grants_its_share(front: Front) -> None:
    made = await limited(front, tenant={"requests_per_minute": 4})
    async with second_gateway(front, redis_url="", limits_local_share=0.25) as other:
        tenant = Tenant(other, made.identity, made.request_ids)
        await tenant.chat("The share.")
        await refused(tenant, "More.")


async def test_a_long_stream_keeps_its_lease(front: Front) -> None:
    made = await limited(front, tenant={"concurrent_streams": 1})
    async with second_gateway(front, stream_lease_seconds=1.5) as other:
        tenant = Tenant(other, made.identity, made.request_ids)
        front.first.set(stall_after_chunks=3)
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Slowly."}]}
        stalled = tenant.call(orjson.dumps(body))
        await stalled.read()
        later = asyncio.get_running_loop().time() + 2.5
        while asyncio.get_running_loop().time() < later:
            await refused(tenant, "Meanwhile.")
        stalled.cancel()


async def test_a_key_may_use_the_models_it_names_and_no_other(front: Front) -> None:
    tenant = await front.tenant()
    narrow = await key_of(tenant, policy={"allowed_models": ["e"]})
    await _known(narrow)
    assert await narrow.failure("May I?") == (grpc.StatusCode.PERMISSION_DENIED, "MODEL_NOT_ALLOWED")
    update = tenant_pb2.UpdateKeyRequest(
        tenant_id=narrow.identity.tenant_id, key_id=narrow.identity.key_id, policy={"allowed_models": ["m"]}
    )
    with acting_as(ADMIN):
        await front.billing.tenants.UpdateKey(update)

    async def allowed() -> bool:
        try:
            return bool((await narrow.chat("And now?")).bodies)
        except grpc.aio.AioRpcError:
            return False

    await eventually(allowed)


async def test_a_key_never_may_what_its_tenant_may_not(front: Front) -> None:
    tenant = await front.tenant(allowed_models=["e"])
    wide = await key_of(tenant, policy={"allowed_models": ["m"]})
    await _known(wide)
    assert await wide.failure("May I?") == (grpc.StatusCode.PERMISSION_DENIED, "MODEL_NOT_ALLOWED")
