"""The gateway among real rooms: billing on Postgres, the cache on Redis, the router with two scripted clouds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import orjson
import yaml
from google.api import httpbody_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llmmesh.audit.v1 import audit_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2, openai_pb2
from llmmesh.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from llmmesh.gateway.v1.openai_pb2_grpc import OpenAIServiceStub
from llmmesh.guard.v1 import guard_pb2
from llmmesh.guard.v1.guard_pb2_grpc import GuardServiceServicer, add_GuardServiceServicer_to_server
from meshkit.client import connect
from meshkit.errors import error_reason
from meshkit.identity import Identity, acting_as
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings
from services.cache.app import cache
from services.cache.config import CacheConfig
from services.gateway.app import gateway
from services.gateway.config import GatewayConfig
from services.router.app import router
from services.router.config import RouterConfig
from tests.support.billing_room import ADMIN
from tests.support.billing_room import Room as BillingRoom
from tests.support.scripted_provider import ScriptedProvider, scripted_provider

QUIET = {"listen": "127.0.0.1:0", "metrics_listen": "", "drain_seconds": 1}
CALL_SECONDS = 20.0
PATIENCE_SECONDS = 10.0
PRICES = """
prices:
  - {deployment: first/m, currency: RUB, input: "100", output: "300"}
  - {deployment: second/m, currency: RUB, input: "200", output: "600"}
  - {deployment: first/e, currency: RUB, input: "50", output: "0"}
"""
_numbers = count()


class ScriptedGuard(GuardServiceServicer):
    """A guard that does what a healthy one never does, and judges by single words otherwise."""

    def __init__(self) -> None:
        self.policy_version = "v1"
        self.action = guard_pb2.ACTION_ALLOW
        self.frozen = False
        self.breaks_in_answers = False
        self.unsure = False
        self.fails_in_answers = False
        self.fails_in_prompts = False
        self.fails_open = False
        """Whether a layer is away whose tenants let that pass."""
        self.prompts: list[Any] = []
        self.openings: list[Any] = []
        """The first piece of every answer."""

    async def GetPolicy(self, request: Any, context: Any) -> Any:
        return guard_pb2.GetPolicyResponse(policy_version=self.policy_version)

    async def CheckPrompt(self, request: Any, context: Any) -> Any:
        self.prompts.append(request)
        if self.frozen:
            await asyncio.Event().wait()
        verdict = self._verdict(str(request))
        if self.fails_in_prompts:
            verdict.action = guard_pb2.ACTION_ERROR
        return guard_pb2.CheckPromptResponse(verdict=verdict, unsure=self.unsure)

    async def CheckText(self, request: Any, context: Any) -> Any:
        return guard_pb2.CheckTextResponse(verdict=self._verdict(request.text))

    async def WatchAnswer(self, pieces: Any, context: Any) -> AsyncIterator[Any]:
        held, opened = "", False
        async for piece in pieces:
            if not opened:
                self.openings.append(piece)
            opened = True
            held += piece.text
            if self.breaks_in_answers:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
            if self.fails_in_answers:
                self.action = guard_pb2.ACTION_ERROR
            verdict = self._verdict(held)
            if verdict.action in (guard_pb2.ACTION_BLOCK, guard_pb2.ACTION_ERROR):
                yield guard_pb2.WatchAnswerResponse(verdict=verdict)
                return
            shown, held = (held, "") if piece.last else (held[:-12], held[-12:])
            yield guard_pb2.WatchAnswerResponse(text=shown, verdict=verdict if piece.last else None)

    def _verdict(self, text: str) -> guard_pb2.Verdict:
        blocked = "forbidden" in text
        failed = self.action == guard_pb2.ACTION_ERROR
        private = "confidential" in text
        return guard_pb2.Verdict(
            action=guard_pb2.ACTION_BLOCK if blocked else self.action,
            risk_level=guard_pb2.RISK_LEVEL_HIGH if blocked else guard_pb2.RISK_LEVEL_LOW,
            data_class=chat_pb2.DATA_CLASS_CONFIDENTIAL if private else chat_pb2.DATA_CLASS_PUBLIC,
            detections=[
                guard_pb2.Detection(rule=rule)
                for rule, there in (
                    ("words.forbidden", blocked),
                    ("scripted.failed", failed),
                    ("scripted.failed_open", self.fails_open),
                )
                if there
            ],
            policy_version=self.policy_version,
        )


@dataclass
class Reply:
    """What came back over the OpenAI face."""

    headers: dict[str, str]
    bodies: list[bytes]

    @property
    def json(self) -> Any:
        """The one body, decoded."""
        (body,) = self.bodies
        return orjson.loads(body)

    @property
    def events(self) -> list[Any]:
        """The events of a stream; the end mark is the text "[DONE]"."""
        datas = [part.removeprefix("data: ") for part in b"".join(self.bodies).decode().split("\n\n") if part]
        return [data if data == "[DONE]" else orjson.loads(data) for data in datas]

    @property
    def text(self) -> str:
        """What a stream said."""
        choices = [event["choices"] for event in self.events if event != "[DONE]" and "choices" in event]
        return "".join(choice[0]["delta"].get("content") or "" for choice in choices if choice)


@dataclass
class Front:
    """A running gateway and everybody behind it."""

    port: int
    openai: Any
    typed: Any
    billing: BillingRoom
    guard: ScriptedGuard
    first: ScriptedProvider
    second: ScriptedProvider
    targets: dict[str, Any]

    async def tenant(self, *, rubles: float = 1000, **policy: Any) -> Tenant:
        """A new tenant and a developer's key of it."""
        name = f"t{next(_numbers)}-{uuid4().hex[:8]}"
        return Tenant(self, await self.billing.tenant(name, rubles=rubles, policy=policy))


@dataclass
class Tenant:
    """A caller of the gateway."""

    front: Front
    identity: Identity
    request_ids: list[str] = field(default_factory=list)

    def metadata(self, **headers: str) -> list[tuple[str, str]]:
        """The identity as the edge sets it, with a new request id, and more headers."""
        self.request_ids.append(f"{self.identity.tenant_id}-{len(self.request_ids)}")
        base = Identity(self.identity.tenant_id, self.identity.key_id, self.identity.roles, self.request_ids[-1])
        return [*base.to_metadata(), *((name.replace("_", "-"), value) for name, value in headers.items())]

    def call(self, body: bytes, **headers: str) -> Any:
        """A chat completion call with a raw body."""
        raw = httpbody_pb2.HttpBody(content_type="application/json", data=body)
        request = openai_pb2.CreateChatCompletionRequest(body=raw)
        return self.front.openai.CreateChatCompletion(request, metadata=self.metadata(**headers), timeout=CALL_SECONDS)

    async def chat(self, text: str, headers: dict[str, str] | None = None, **more: Any) -> Reply:
        """Ask one question of model m."""
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
        call = self.call(orjson.dumps(body), **(headers or {}))
        bodies = [message.data async for message in call]
        return Reply(dict(await call.initial_metadata()), bodies)

    async def failure(self, text: str, **more: Any) -> tuple[grpc.StatusCode, str | None]:
        """Ask, and expect a refusal before anything was said: its status and reason."""
        try:
            reply = await self.chat(text, **more)
        except grpc.aio.AioRpcError as error:
            return error.code(), error_reason(error)
        raise AssertionError(f"answered: {reply.bodies}")

    async def usage(self, *, rows: int) -> list[Any]:
        """The ledger rows of this tenant, newest first, once there are so many."""

        async def found() -> list[Any]:
            records = await self.front.billing.usage(self.identity)
            return records if len(records) >= rows else []

        return await eventually(found)

    async def held_micros(self) -> int:
        """What is reserved now."""
        return (await self.front.billing.budget(self.identity)).reserved_micros

    async def nothing_held(self) -> None:
        """Return once nothing is reserved."""

        async def free() -> bool:
            return await self.held_micros() == 0

        await eventually(free)


async def eventually(holds: Callable[[], Awaitable[Any]]) -> Any:
    """The first true answer; what is done in the background is soon done."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := await holds()):  # noqa: ASYNC110 - other rooms cannot tell us
            await asyncio.sleep(0.02)
    return found


async def audit_events(tenant: Tenant, *, rows: int) -> list[Any]:
    """The audit events of a tenant, newest first, once there are so many."""

    async def found() -> list[Any]:
        request = audit_pb2.ListEventsRequest(tenant_id=tenant.identity.tenant_id)
        with acting_as(ADMIN):
            answer = await tenant.front.billing.audit.ListEvents(request)
        return list(answer.events) if len(answer.events) >= rows else []

    return await eventually(found)


@asynccontextmanager
async def front_room(billing: BillingRoom, redis_url: str, folder: Path, **settings: Any) -> AsyncIterator[Front]:
    """Run the gateway with a router, a cache and a scripted guard around `billing`."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        first, second = await enter(scripted_provider()), await enter(scripted_provider())
        mesh = f"127.0.0.1:{billing.port}"
        guard = ScriptedGuard()
        ports = {
            "guard": await enter(
                running([Mount(add_GuardServiceServicer_to_server, guard)], ServiceSettings(**QUIET), room="guard")
            ),
            "router": await enter(
                router(RouterConfig(routes=_routes(folder, first, second), mesh_target=mesh, **QUIET))
            ),
            "cache": await enter(
                cache(
                    CacheConfig(
                        redis_url=redis_url,
                        redis_timeout_seconds=1,
                        qdrant_path=folder / "qdrant",
                        mesh_target=mesh,
                        **QUIET,
                    )
                )
            ),
            "billing": billing.port,
        }
        targets = {f"{room}_target": f"127.0.0.1:{port}" for room, port in ports.items()}
        # A deadline that a busy machine keeps; tests of outages set their own.
        targets |= {"redis_url": redis_url, "limits_timeout_seconds": 5}
        port, openai, typed = await enter(_gateway({**targets, **settings}))
        yield Front(port, openai, typed, billing, guard, first, second, targets)


@asynccontextmanager
async def second_gateway(front: Front, **settings: Any) -> AsyncIterator[Front]:
    """Another gateway in front of the same rooms."""
    async with _gateway({**front.targets, **settings}) as (port, openai, typed):
        yield replace(front, port=port, openai=openai, typed=typed)


@asynccontextmanager
async def _gateway(settings: dict[str, Any]) -> AsyncIterator[tuple[int, Any, Any]]:
    """Run a gateway; yields its port and a stub for each face."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(gateway(GatewayConfig(**{**QUIET, **settings})))
        await _serving(port)
        openai = await stack.enter_async_context(connect(f"127.0.0.1:{port}", OpenAIServiceStub))
        typed = await stack.enter_async_context(connect(f"127.0.0.1:{port}", GatewayServiceStub))
        yield port, openai, typed


def typed_prompt(text: str) -> gateway_pb2.GenerateChatRequest:
    """A question of model m for the typed face."""
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])
    return gateway_pb2.GenerateChatRequest(prompt=chat_pb2.ChatPrompt(model="m", messages=[message]))


def _routes(folder: Path, first: ScriptedProvider, second: ScriptedProvider) -> Path:
    def cloud(name: str, provider: ScriptedProvider, serves: str, **more: Any) -> dict[str, Any]:
        return {
            "name": f"{name}/{serves}",
            "adapter": "openai",
            "provider": name,
            "base_url": provider.base_url,
            "model": "scripted",
            "serves": serves,
            "region": "global",
            "data_classes": ["public", "internal"],
            "credential": "env:SCRIPTED_KEY",
            "context_tokens": 8000,
            **more,
        }

    path = folder / "routes.yaml"
    deployments = [
        cloud("first", first, "m", capabilities=["tools", "json_schema"]),
        cloud("second", second, "m", capabilities=["tools", "json_schema"], quality=0.9),
        cloud("first", first, "e", embeds=True),
    ]
    path.write_text(yaml.safe_dump({"deployments": deployments}))
    return path


async def _serving(port: int) -> None:
    """Return once the gateway says that it is ready."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(PATIENCE_SECONDS):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        async for answer in stub.Watch(health_pb2.HealthCheckRequest()):
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
