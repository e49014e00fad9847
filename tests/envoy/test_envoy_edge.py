"""What a client of the edge sees when things go well: bytes untouched, identity set, headers clean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import grpc
import httpx
import pytest

from llmmesh.gateway.v1 import gateway_pb2
from llmmesh.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.envoy.rooms import SSE, OpenAIRoom, SigningKey
from tests.support.fix_envoy import RunningEnvoy

CHAT = "/v1/chat/completions"


async def seen_by_the_room(http: httpx.AsyncClient, headers: Mapping[str, str]) -> dict[str, Any]:
    """What reached the room behind the edge."""
    answer = await http.post(CHAT, headers=headers, json={"do": "echo"})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_the_body_reaches_the_room_byte_for_byte(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    body = b'{ "do":"echo", "big": 9007199254740993, "f": 5.0, "unknown": {"b":1,"a":[null]} }'
    answer = await http.post(CHAT, headers=issuer.bearer(), content=body)
    assert answer.json()["raw"] == body.decode()


async def test_claims_become_identity(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    metadata = (await seen_by_the_room(http, issuer.bearer()))["metadata"]
    identity = (metadata["x-llmmesh-tenant"], metadata["x-llmmesh-key"], metadata["x-llmmesh-roles"])
    assert identity == ("acme", "key-1", "developer finance")


async def test_the_key_itself_stays_at_the_edge(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    assert "authorization" not in (await seen_by_the_room(http, issuer.bearer()))["metadata"]


async def test_a_client_cannot_set_what_only_the_mesh_may_say(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    spoofed = {
        "x-llmmesh-tenant": "victim",
        "x-llmmesh-key": "stolen",
        "x-llmmesh-roles": "admin",
        "x-openai-error": "{}",
        "x-envoy-original-path": "/elsewhere",
        "x-envoy-upstream-rq-timeout-ms": "1",
    }
    metadata = (await seen_by_the_room(http, {**issuer.bearer(roles="developer"), **spoofed}))["metadata"]
    assert metadata["x-llmmesh-tenant"] == "acme"
    assert metadata["x-llmmesh-key"] == "key-1"
    assert metadata["x-llmmesh-roles"] == "developer"
    assert "x-openai-error" not in metadata
    assert metadata["x-envoy-original-path"] == CHAT


async def test_a_client_does_not_choose_the_request_id(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    answer = await http.post(CHAT, headers={**issuer.bearer(), "x-request-id": "mine"}, json={"do": "echo"})
    assert answer.headers["x-request-id"] != "mine"
    assert answer.headers["x-request-id"] == answer.json()["metadata"]["x-request-id"]


async def test_events_arrive_byte_for_byte_and_as_they_are_made(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    async with http.stream("POST", CHAT, headers=issuer.bearer(), json={"do": "stream"}) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert b"".join([chunk async for chunk in answer.aiter_raw()]) == b"".join(SSE)


async def test_a_client_that_hangs_up_stops_the_room(
    http: httpx.AsyncClient, issuer: SigningKey, openai_room: OpenAIRoom
) -> None:
    async with http.stream("POST", CHAT, headers=issuer.bearer(), json={"do": "wait"}) as answer:
        assert await anext(answer.aiter_raw()) == b"data: 1\n\n"
        assert not openai_room.left.is_set()
    await asyncio.wait_for(openai_room.left.wait(), 5)


async def test_the_rooms_headers_reach_the_client_without_noise(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    answer = await http.post(CHAT, headers=issuer.bearer(), json={"do": "echo"})
    assert answer.headers["x-llmmesh-cache"] == "miss"
    assert answer.headers["x-llmmesh-cost"] == "0.000012 USD"
    noise = {"grpc-accept-encoding", "grpc-status", "x-envoy-upstream-service-time", "x-openai-error"}
    assert not noise & set(answer.headers)


@pytest.mark.parametrize("spelling", ["org/name", "org%2Fname", "name"])
async def test_a_models_name_may_hold_slashes(http: httpx.AsyncClient, issuer: SigningKey, spelling: str) -> None:
    answer = await http.get(f"/v1/models/{spelling}?unknown=1", headers=issuer.bearer())
    assert answer.json() == {"id": spelling.replace("%2F", "/")}


async def test_admin_resources_keep_their_proto_names(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    answer = await http.get("/v1/tenants/acme", headers=issuer.bearer())
    assert answer.json() == {"tenant": {"id": "acme"}}


async def test_a_body_of_16_mib_passes_and_an_answer_of_as_much(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    body = b"x" * (16 * 1024 * 1024)
    answer = await http.post("/v1/embeddings", headers=issuer.bearer(), content=body)
    assert answer.content == body


async def test_signing_keys_need_no_key(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    answer = await http.get("/.well-known/jwks.json", headers={"x-llmmesh-roles": "admin"})
    assert answer.content == issuer.jwks


async def test_health_follows_the_gateway(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).status_code == 200


async def test_native_grpc_shares_the_port(edge: RunningEnvoy, issuer: SigningKey) -> None:
    async with grpc.aio.insecure_channel(edge.grpc_target) as channel:
        call = GatewayServiceStub(channel).ListModels(
            gateway_pb2.ListModelsRequest(), metadata=tuple(issuer.bearer().items()), timeout=10
        )
        request_id = dict(await call.initial_metadata())["x-request-id"]
        assert (await call).models[0].name == f"acme/key-1/{request_id}"


async def test_the_access_log_names_request_and_tenant_but_no_secret(
    edge: RunningEnvoy, http: httpx.AsyncClient, issuer: SigningKey
) -> None:
    headers = issuer.bearer()
    answer = await http.post(f"{CHAT}?secret=1", headers=headers, json={"do": "echo"})
    line = await _access_log_line(edge, answer.headers["x-request-id"])
    assert (line["tenant"], line["key"], line["method"], line["path"]) == ("acme", "key-1", "POST", CHAT)
    assert (line["rpc"], line["status"]) == ("/llmmesh.gateway.v1.OpenAIService/CreateChatCompletion", 200)
    assert "secret" not in json.dumps(line)
    assert headers["authorization"].removeprefix("Bearer ") not in json.dumps(line)


async def test_prometheus_names_service_and_method(
    edge: RunningEnvoy, http: httpx.AsyncClient, issuer: SigningKey
) -> None:
    await http.post(CHAT, headers=issuer.bearer(), json={"do": "echo"})
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.status_port}") as status:
        assert (await status.get("/ready")).status_code == 200
        assert (await status.get("/config_dump")).status_code == 404
        page = (await status.get("/stats/prometheus")).text
    labels = 'grpc_service="llmmesh.gateway.v1.OpenAIService",grpc_method="CreateChatCompletion"'
    swapped = ",".join(reversed(labels.split(",")))
    counted = [line for line in page.splitlines() if line.startswith("envoy_cluster_grpc_success")]
    assert any((labels in line or swapped in line) and 'envoy_cluster_name="gateway"' in line for line in counted)


async def _access_log_line(edge: RunningEnvoy, request_id: str) -> dict[str, Any]:
    async with asyncio.timeout(5):
        while True:
            for line in edge.access_log.read_text().splitlines():
                fields = json.loads(line)
                if fields["request_id"] == request_id:
                    return dict(fields)
            await asyncio.sleep(0.02)
