"""What a client of the edge sees when things go wrong: OpenAI's JSON over REST, true statuses over gRPC."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceStub
from llmmesh.gateway.v1 import gateway_pb2
from llmmesh.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from meshkit.errors import error_reason
from tests.envoy.rooms import SigningKey, billing_room, gateway_room
from tests.support.fix_envoy import RunningEnvoy, StartEnvoy, running_envoy

CHAT = "/v1/chat/completions"
LARGEST = 16 * 1024 * 1024


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error object, once the outside of the answer is right."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def rpc_error(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """The error a native call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_no_key_is_401(http: httpx.AsyncClient) -> None:
    answer = await http.post(CHAT, json={})
    error = error_of(answer, 401)
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "claims",
    [{"exp": int(time.time()) - 3600}, {"iss": "someone"}, {"aud": "another"}],
    ids=["expired", "foreign issuer", "foreign audience"],
)
async def test_a_key_that_does_not_fit_is_401(
    http: httpx.AsyncClient, issuer: SigningKey, claims: dict[str, Any]
) -> None:
    error = error_of(await http.post(CHAT, headers=issuer.bearer(**claims), json={}), 401)
    assert error["code"] == "invalid_api_key"


@pytest.mark.parametrize("key", [SigningKey().token(), "sk-made-up", "."], ids=["foreign", "not a token", "a dot"])
async def test_a_key_of_another_signer_is_401(http: httpx.AsyncClient, key: str) -> None:
    answer = await http.post(CHAT, headers={"authorization": f"Bearer {key}"}, json={})
    assert error_of(answer, 401)["code"] == "invalid_api_key"


async def test_an_unsigned_key_is_401(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    answer = await http.post(CHAT, headers={"authorization": f"Bearer {none}.{issuer.token().split('.')[1]}."}, json={})
    assert error_of(answer, 401)["code"] == "invalid_api_key"


async def test_a_key_in_the_query_is_not_read(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    error_of(await http.get(f"/v1/models/x?access_token={issuer.token()}"), 401)


@pytest.mark.parametrize("path", ["/v1/models/x", "/v1//models/x", "/v1/./models/x", "/v1/%6dodels/x", "/v1/models/x/"])
async def test_no_spelling_of_a_path_avoids_the_key(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code in (401, 404)


async def test_a_key_without_the_role_is_403(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    error = error_of(await http.get("/v1/tenants/acme", headers=issuer.bearer(roles="developer")), 403)
    assert (error["type"], error["code"]) == ("permission_error", "role_missing")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nowhere"), ("GET", CHAT), ("POST", "/llmmesh.gateway.v1.GatewayService/ListModels"), ("GET", "/")],
)
@pytest.mark.parametrize("has_key", [True, False])
async def test_an_unknown_url_or_method_is_404(
    http: httpx.AsyncClient, issuer: SigningKey, method: str, path: str, has_key: bool
) -> None:
    answer = await http.request(method, f"{path}?q=secret", headers=issuer.bearer() if has_key else {}, json={})
    error = error_of(answer, 404)
    assert (error["type"], error["code"]) == ("invalid_request_error", "unknown_url")
    assert f"{method} {path}" in error["message"]
    assert "secret" not in error["message"]


async def test_a_path_full_of_quotes_stays_json(http: httpx.AsyncClient) -> None:
    error_of(await http.get('/"},"x":{"'), 404)


@pytest.mark.parametrize("content", [b"x" * (LARGEST + 1024), None], ids=["with length", "chunked"])
async def test_a_body_over_16_mib_is_413(http: httpx.AsyncClient, issuer: SigningKey, content: bytes | None) -> None:
    async def chunks() -> Any:
        for _ in range(17):
            yield b"x" * (1 << 20)

    answer = await http.post("/v1/embeddings", headers=issuer.bearer(), content=content or chunks())
    assert error_of(answer, 413)["code"] == "request_too_large"


async def test_json_that_does_not_parse_is_400(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    answer = await http.patch("/v1/tenants/acme", headers=issuer.bearer(), content=b'{"display_name": 5')
    assert error_of(answer, 400)["type"] == "invalid_request_error"


async def test_a_field_that_is_wrong_is_400_and_named(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    error = error_of(await http.post(CHAT, headers=issuer.bearer(), json={"do": "fail early"}), 400)
    assert (error["type"], error["param"]) == ("invalid_request_error", "messages")


async def test_a_rooms_error_keeps_its_words_and_retry_after(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    answer = await http.post(CHAT, headers=issuer.bearer(), json={"do": "fail"})
    error = error_of(answer, 429)
    assert error["message"] == "The budget of March is spent – ask finance."
    assert error["code"] == "insufficient_quota"
    assert answer.headers["retry-after"] == "7"
    assert not {"grpc-status", "grpc-message", "grpc-status-details-bin", "x-openai-error"} & set(answer.headers)


async def test_the_official_client_raises_its_own_classes(edge: RunningEnvoy, issuer: SigningKey) -> None:
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=issuer.token(), max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.post("/chat/completions", body={"do": "fail"}, cast_to=object)
    assert caught.value.code == "insufficient_quota"


async def test_an_error_that_never_reached_our_code_has_the_shape_too(
    http: httpx.AsyncClient, issuer: SigningKey
) -> None:
    answer = await http.get("/v1/tenants", headers=issuer.bearer(roles="admin"))
    assert "larger than max" in error_of(answer, 429)["message"]


async def test_a_room_that_is_down_is_503_at_once(http: httpx.AsyncClient, issuer: SigningKey) -> None:
    started = time.monotonic()
    answer = await http.post("/v1/guard:check", headers=issuer.bearer(), json={})
    assert error_of(answer, 503)["type"] == "service_unavailable"
    assert answer.headers["retry-after"] == "2"
    assert time.monotonic() - started < 1


async def test_native_calls_get_the_true_status_and_reason(edge: RunningEnvoy, issuer: SigningKey) -> None:
    async with grpc.aio.insecure_channel(edge.grpc_target) as channel:
        stub, metadata = GatewayServiceStub(channel), tuple(issuer.bearer().items())
        error = await rpc_error(stub.GenerateChat(gateway_pb2.GenerateChatRequest(), metadata=metadata, timeout=10))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "The model is loading."
    assert error_reason(error) == "MODEL_WARMING"


async def test_native_calls_without_a_key_are_unauthenticated(edge: RunningEnvoy) -> None:
    async with grpc.aio.insecure_channel(edge.grpc_target) as channel:
        error = await rpc_error(GatewayServiceStub(channel).ListModels(gateway_pb2.ListModelsRequest(), timeout=10))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.details() == "Jwt is missing"


async def test_rpcs_of_the_mesh_alone_do_not_exist_at_the_edge(edge: RunningEnvoy, issuer: SigningKey) -> None:
    async with grpc.aio.insecure_channel(edge.grpc_target) as channel:
        stub, metadata = CacheServiceStub(channel), tuple(issuer.bearer(roles="admin").items())
        error = await rpc_error(stub.LookupAnswer(cache_pb2.LookupAnswerRequest(), metadata=metadata, timeout=10))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_upload_without_a_key_is_refused_before_it_is_read(edge: RunningEnvoy) -> None:
    with socket.create_connection(("127.0.0.1", edge.edge_port), timeout=5) as client:
        client.sendall(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{{".encode())
        assert client.recv(12) == b"HTTP/1.1 401"


async def test_keys_are_503_while_signing_keys_are_away_and_good_soon_after(
    start_envoy: StartEnvoy, free_port: int
) -> None:
    issuer = SigningKey()
    async with gateway_room() as gateway:
        envoy = await start_envoy({"gateway": [gateway], "billing": [free_port]})
        await envoy.healthy("gateway")
        async with httpx.AsyncClient(base_url=envoy.url, headers=issuer.bearer(), timeout=10) as http:
            away = await http.post(CHAT, json={"do": "echo"})
            assert error_of(away, 503)["code"] == "authentication_unavailable"
            assert away.headers["retry-after"] == "2"
            async with billing_room(issuer, f"127.0.0.1:{free_port}"):
                await envoy.healthy("billing")
                assert (await http.post(CHAT, json={"do": "echo"})).status_code == 200
            # Keys once known stay good while the issuer is away.
            await envoy.healthy("billing", 0)
            assert (await http.post(CHAT, json={"do": "echo"})).status_code == 200


async def test_a_key_is_401_once_its_signing_key_is_retired_however_often_it_is_used(tmp_path: Path) -> None:
    issuer = SigningKey()
    async with gateway_room() as gateway, billing_room(issuer) as billing:
        rooms = {"gateway": [gateway], "billing": [billing]}
        async with (
            running_envoy(rooms, tmp_path, jwks_seconds=1) as envoy,
            httpx.AsyncClient(base_url=envoy.url, headers=issuer.bearer(), timeout=10) as http,
        ):

            async def status() -> int:
                return (await http.post(CHAT, json={"do": "echo"})).status_code

            await envoy.healthy("gateway")
            await envoy.healthy("billing")
            assert await status() == 200
            issuer.jwks = SigningKey().jwks
            async with asyncio.timeout(15):
                while await status() == 200:
                    pass
            assert await status() == 401


async def test_native_calls_are_unavailable_while_signing_keys_are_away(start_envoy: StartEnvoy) -> None:
    envoy = await start_envoy({})
    async with grpc.aio.insecure_channel(envoy.grpc_target) as channel:
        stub, metadata = GatewayServiceStub(channel), tuple(SigningKey().bearer().items())
        error = await rpc_error(stub.ListModels(gateway_pb2.ListModelsRequest(), metadata=metadata, timeout=10))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_health_is_503_while_no_gateway_is_healthy(start_envoy: StartEnvoy) -> None:
    envoy = await start_envoy({})
    async with httpx.AsyncClient(base_url=envoy.url) as http:
        assert (await http.get("/healthz")).status_code == 503
