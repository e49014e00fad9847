"""The router between real servers: two scripted clouds over HTTP, scripted inference and billing over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from llmmesh.billing.v1 import billing_pb2
from llmmesh.billing.v1.billing_pb2_grpc import BillingServiceServicer, add_BillingServiceServicer_to_server
from llmmesh.chat.v1 import chat_pb2
from llmmesh.inference.v1 import inference_pb2
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceServicer, add_InferenceServiceServicer_to_server
from llmmesh.router.v1 import router_pb2
from llmmesh.router.v1.router_pb2_grpc import RouterServiceStub
from meshkit.client import connect
from meshkit.errors import DependencyUnavailable, MeshError
from meshkit.identity import Identity, acting_as
from meshkit.server import Mount, running
from meshkit.settings import ServiceSettings
from services.gateway.peers.router import unpacked
from services.router.app import router
from services.router.config import RouterConfig
from tests.support.scripted_provider import ScriptedProvider, scripted_provider

QUIET = {"listen": "127.0.0.1:0", "metrics_listen": "", "drain_seconds": 0}


class ScriptedInference(InferenceServiceServicer):
    """Our own models, saying what the test wants."""

    def __init__(self) -> None:
        self.deltas = [chat_pb2.Delta(text="from "), chat_pb2.Delta(text="our own")]
        self.usage: chat_pb2.TokenUsage | None = chat_pb2.TokenUsage(input_tokens=7, output_tokens=2)
        self.failure: MeshError | None = None
        self.endless = False
        self.state = inference_pb2.MODEL_STATE_READY
        self.prompts: list[chat_pb2.ChatPrompt] = []
        self.stopped = asyncio.Event()

    async def StreamGenerateChat(self, request, context):
        self.prompts.append(request.prompt)
        if self.failure:
            raise self.failure
        try:
            for delta in self.deltas:
                yield inference_pb2.StreamGenerateChatResponse(delta=delta)
            if self.endless:
                await asyncio.Event().wait()
        finally:
            self.stopped.set()
        finished = inference_pb2.Finished(finish_reason=chat_pb2.FINISH_REASON_STOP, usage=self.usage)
        yield inference_pb2.StreamGenerateChatResponse(finished=finished)

    async def EmbedText(self, request, context):
        if self.failure:
            raise self.failure
        vectors = [inference_pb2.Embedding(values=[0.5, len(text)]) for text in request.texts]
        return inference_pb2.EmbedTextResponse(embeddings=vectors, input_tokens=3, model=request.model)

    async def ListModels(self, request, context):
        model = inference_pb2.Model(name="smol", state=self.state, detail="loading weights")
        return inference_pb2.ListModelsResponse(models=[model])


class ScriptedBilling(BillingServiceServicer):
    """Prices the test wants."""

    def __init__(self) -> None:
        self.prices: dict[str, int] = {}
        self.away = False
        self.asked = 0
        self._asked_again = asyncio.Event()

    async def ListPrices(self, request, context):
        self.asked += 1
        self._asked_again.set()
        if self.away:
            raise DependencyUnavailable("The price book is away.", retry_after_seconds=1)
        return billing_pb2.ListPricesResponse(
            prices=[
                billing_pb2.Price(deployment=name, base_input_micros=micros, base_output_micros=micros)
                for name, micros in self.prices.items()
            ]
        )

    async def was_read(self) -> None:
        """Return once a price list asked for after now has been put to use: the next asking proves it."""
        wanted = self.asked + 2
        while self.asked < wanted:
            self._asked_again.clear()
            await asyncio.wait_for(self._asked_again.wait(), 10)


@dataclass
class RouterRoom:
    """A running router and everybody it talks to."""

    stub: Any
    cheap: ScriptedProvider
    dear: ScriptedProvider
    inference: ScriptedInference
    billing: ScriptedBilling
    routes: Path
    deployments: list[str] = field(default_factory=list)

    def request(self, text: str = "Tell me about foxes", model: str = "m", **changes: Any) -> Any:
        """A chat request that allows every deployment, public data, anywhere."""
        prompt = chat_pb2.ChatPrompt(
            model=model,
            messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])],
            options=changes.pop("options", None),
        )
        return router_pb2.StreamGenerateChatRequest(prompt=prompt, constraints=self.constraints(**changes))

    def constraints(self, **changes: Any) -> router_pb2.RouteConstraints:
        """Everything allowed, unless changed."""
        given = {"deployments": self.deployments, "data_class": chat_pb2.DATA_CLASS_PUBLIC, **changes}
        return router_pb2.RouteConstraints(**given)

    async def states(self) -> router_pb2.ListProvidersResponse:
        """Every deployment and the routes file, as an operator sees them."""
        with acting_as(Identity(key_id="k", roles=frozenset({"operator"}))):
            response: router_pb2.ListProvidersResponse = await self.stub.ListProviders(
                router_pb2.ListProvidersRequest(), timeout=20
            )
        return response

    async def until_states(self, holds: Callable[[router_pb2.ListProvidersResponse], bool]) -> None:
        """Return once `holds` of them; TimeoutError when it never does."""
        async with asyncio.timeout(20):
            while not holds(await self.states()):
                pass

    async def answer(self, *args: Any, **changes: Any) -> Told:
        """Ask, and gather the whole answer."""
        told = Told([])
        await told.gather(self.stub.StreamGenerateChat(self.request(*args, **changes), timeout=20))
        return told

    async def failure(self, *args: Any, **changes: Any) -> grpc.aio.AioRpcError:
        """Ask, and expect to fail before anything was said."""
        said, error = await self.broken(*args, **changes)
        assert said.steps == []
        return error

    async def broken(self, *args: Any, **changes: Any) -> tuple[Told, grpc.aio.AioRpcError]:
        """Ask, and expect to fail; what was said before it, too."""
        told = Told([])
        call = self.stub.StreamGenerateChat(self.request(*args, **changes), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await told.gather(call)
        return told, caught.value


@dataclass
class Told:
    """The steps of one answer."""

    steps: list[router_pb2.StreamGenerateChatResponse]

    async def gather(self, call: Any) -> None:
        """Keep every step of `call`."""
        async for step in call:
            self.steps.extend(unpacked(step))

    @property
    def route(self) -> router_pb2.RouteChosen:
        assert [step.WhichOneof("event") for step in self.steps].index("route") == 0
        return self.steps[0].route

    @property
    def deltas(self) -> list[chat_pb2.Delta]:
        return [step.delta for step in self.steps if step.HasField("delta")]

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def finished(self) -> router_pb2.Finished:
        ends = [step for step in self.steps if step.HasField("finished")]
        assert ends == self.steps[-1:]
        return self.steps[-1].finished


def cloud(name: str, provider: ScriptedProvider, **changes: Any) -> dict[str, Any]:
    """A routes entry of a scripted cloud."""
    entry = {
        "name": name,
        "adapter": "openai",
        "provider": name,
        "base_url": provider.base_url,
        "model": f"{name}-model",
        "serves": "m",
        "region": "global",
        "data_classes": ["public", "internal"],
        "context_tokens": 1000,
        "capabilities": ["tools", "json_schema", "vision"],
        "credential": "env:SCRIPTED_KEY",
        "timeouts": {"connect_seconds": 2, "first_token_seconds": 2, "idle_chunk_seconds": 2},
    }
    return {**entry, **changes}


def ours(name: str = "ours", **changes: Any) -> dict[str, Any]:
    """A routes entry of our own model."""
    entry = {
        "name": name,
        "adapter": "local",
        "provider": "local",
        "model": "smol",
        "serves": "m",
        "context_tokens": 500,
    }
    return {**entry, **changes}


Entries = Callable[[ScriptedProvider, ScriptedProvider], list[dict[str, Any]]]


@asynccontextmanager
async def router_room(
    routes: Path, entries: Entries | None = None, sections: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[RouterRoom]:
    """Run a router whose routes, written to `routes`, are those `entries` gives.

    `sections` are the further ones of that file; `settings` change the router's config.
    """
    inference, billing = ScriptedInference(), ScriptedBilling()
    mounts = [
        Mount(add_InferenceServiceServicer_to_server, inference),
        Mount(add_BillingServiceServicer_to_server, billing),
    ]
    async with (
        scripted_provider() as cheap,
        scripted_provider() as dear,
        running(mounts, ServiceSettings(**QUIET), room="mesh") as mesh_port,
    ):
        listed = entries(cheap, dear) if entries else [cloud("cheap", cheap), cloud("dear", dear)]
        routes.write_text(yaml.safe_dump({"deployments": listed, **(sections or {})}))  # noqa: ASYNC240 - a test's few bytes
        config = RouterConfig(routes=routes, mesh_target=f"127.0.0.1:{mesh_port}", **QUIET, **settings)
        async with router(config) as port, connect(f"127.0.0.1:{port}", RouterServiceStub, wait_seconds=20) as stub:
            names = [entry["name"] for entry in listed]
            yield RouterRoom(stub, cheap, dear, inference, billing, routes, names)
