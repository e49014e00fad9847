"""Rooms of a few lines behind the real chassis: they say what reached them, and answer what a test asks for."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
from google.api.httpbody_pb2 import HttpBody
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import KeySet, OKPKey

from llmmesh.cache.v1 import cache_pb2
from llmmesh.cache.v1.cache_pb2_grpc import CacheServiceServicer, add_CacheServiceServicer_to_server
from llmmesh.gateway.v1 import gateway_pb2
from llmmesh.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server
from llmmesh.gateway.v1.openai_pb2_grpc import OpenAIServiceServicer, add_OpenAIServiceServicer_to_server
from llmmesh.tenant.v1 import tenant_pb2
from llmmesh.tenant.v1.tenant_pb2_grpc import TenantServiceServicer, add_TenantServiceServicer_to_server
from meshkit import errors
from meshkit.identity import current_identity
from meshkit.server import LARGEST_MESSAGE_BYTES, Context, Mount, running
from meshkit.settings import ServiceSettings

ALONE = ServiceSettings(listen="127.0.0.1:0", metrics_listen="", drain_seconds=0)
SSE = [b'data: {"n":1,"big":9007199254740993}\n\n', b": keep-alive\n\n", b"data: [DONE]\n\n"]


class SigningKey:
    """An issuer's key: signs virtual keys, and publishes its public half."""

    def __init__(self) -> None:
        self.private = OKPKey.generate_key("Ed25519", parameters={"kid": "k1", "alg": "EdDSA", "use": "sig"})
        self.jwks = orjson.dumps(KeySet([self.private]).as_dict(private=False))

    def token(self, **claims: Any) -> str:
        """A virtual key of tenant acme's developer, unless `claims` say otherwise."""
        now = int(time.time())
        all_claims = {
            "iss": "llmmesh",
            "aud": "llmmesh",
            "sub": "key-1",
            "jti": "key-1",
            "tenant": "acme",
            "roles": "developer finance",
            "iat": now,
            "exp": now + 600,
            **claims,
        }
        with warnings.catch_warnings():
            # RFC 9864 renames EdDSA to Ed25519; Envoy knows the old name.
            warnings.simplefilter("ignore", SecurityWarning)
            return str(jwt.encode({"alg": "EdDSA", "kid": "k1"}, all_claims, self.private, algorithms=["EdDSA"]))

    def bearer(self, **claims: Any) -> dict[str, str]:
        """The header that carries it."""
        return {"authorization": f"Bearer {self.token(**claims)}"}


class OpenAIRoom(OpenAIServiceServicer):
    """Echoes the request and everything that came with it, streams, or fails, as the body's `do` says."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.go_on = asyncio.Event()

    async def CreateChatCompletion(self, request: Any, context: Context) -> AsyncIterator[HttpBody]:
        asked = orjson.loads(request.body.data)["do"]
        if asked == "fail early":
            raise errors.FieldInvalid("messages", "must hold at least one message")
        await context.send_initial_metadata((("x-llmmesh-cache", "miss"), ("x-llmmesh-cost", "0.000012 USD")))
        if asked == "fail":
            raise errors.BudgetExceeded("The budget of March is spent – ask finance.", retry_after_seconds=7)
        if asked == "wait":
            async for step in self._held_up():
                yield step
            return
        if asked == "stream":
            for number, event in enumerate(SSE):
                yield HttpBody(content_type="" if number else "text/event-stream", data=event)
            return
        yield HttpBody(content_type="application/json", data=_seen(request.body, context))

    async def CreateEmbedding(self, request: Any, context: Context) -> HttpBody:
        return HttpBody(content_type="application/json", data=request.body.data)

    async def GetOpenAIModel(self, request: Any, context: Context) -> HttpBody:
        return HttpBody(content_type="application/json", data=orjson.dumps({"id": request.model}))

    async def _held_up(self) -> AsyncIterator[HttpBody]:
        try:
            yield HttpBody(content_type="text/event-stream", data=b"data: 1\n\n")
            await self.go_on.wait()
            yield HttpBody(data=b"data: 2\n\n")
        finally:
            self.left.set()


class GatewayRoom(GatewayServiceServicer):
    """Answers typed calls with the caller's name."""

    async def ListModels(self, request: Any, context: Context) -> gateway_pb2.ListModelsResponse:
        caller = current_identity()
        name = f"{caller.tenant_id}/{caller.key_id}/{caller.request_id}"
        return gateway_pb2.ListModelsResponse(models=[gateway_pb2.Model(name=name)])

    async def GenerateChat(self, request: Any, context: Context) -> gateway_pb2.GenerateChatResponse:
        raise errors.ModelWarming("The model is loading.", retry_after_seconds=3)


class TenantRoom(TenantServiceServicer):
    """Publishes one signing key."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    async def GetJwks(self, request: Any, context: Context) -> HttpBody:
        return HttpBody(content_type="application/json", data=self._key.jwks)

    async def ListTenants(self, request: Any, context: Context) -> tenant_pb2.ListTenantsResponse:
        # Larger than a gRPC server sends: the failure is gRPC's own, not our code's.
        return tenant_pb2.ListTenantsResponse(next_page_token="x" * (LARGEST_MESSAGE_BYTES + 1))

    async def GetTenant(self, request: Any, context: Context) -> tenant_pb2.GetTenantResponse:
        return tenant_pb2.GetTenantResponse(tenant=tenant_pb2.Tenant(id=request.tenant_id))


class CacheRoom(CacheServiceServicer):
    """Counts what it is asked, and fails the first calls of each RPC when told to."""

    def __init__(self, *, failures: int = 0) -> None:
        self.calls = 0
        self._failures = failures

    async def LookupAnswer(self, request: Any, context: Context) -> cache_pb2.LookupAnswerResponse:
        self._count()
        return cache_pb2.LookupAnswerResponse()

    async def StoreAnswer(self, request: Any, context: Context) -> cache_pb2.StoreAnswerResponse:
        self._count()
        return cache_pb2.StoreAnswerResponse()

    def _count(self) -> None:
        self.calls += 1
        if self.calls <= self._failures:
            raise errors.DependencyUnavailable("Redis is away.")


@asynccontextmanager
async def gateway_room(openai: OpenAIRoom | None = None) -> AsyncIterator[int]:
    """Both faces on a free port."""
    mounts = [
        Mount(add_OpenAIServiceServicer_to_server, openai or OpenAIRoom()),
        Mount(add_GatewayServiceServicer_to_server, GatewayRoom()),
    ]
    async with running(mounts, ALONE, room="gateway") as port:
        yield port


@asynccontextmanager
async def billing_room(key: SigningKey, listen: str = "127.0.0.1:0") -> AsyncIterator[int]:
    """The issuer on a port."""
    mounts = [Mount(add_TenantServiceServicer_to_server, TenantRoom(key))]
    async with running(mounts, ALONE.model_copy(update={"listen": listen}), room="billing") as port:
        yield port


@asynccontextmanager
async def cache_rooms(*rooms: CacheRoom) -> AsyncIterator[list[int]]:
    """Replicas of the cache, each on a free port."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running([Mount(add_CacheServiceServicer_to_server, room)], ALONE, room="cache")
            )
            for room in rooms
        ]


def _seen(body: HttpBody, context: Context) -> bytes:
    metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    return orjson.dumps({"raw": body.data.decode(), "type": body.content_type, "metadata": metadata})
