"""The router room: models, answers, vectors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TYPE_CHECKING

import grpc

from llmmesh.router.v1 import router_pb2
from meshkit.deadline import time_left
from meshkit.errors import DependencyUnavailable
from meshkit.log import get_logger

if TYPE_CHECKING:
    from llmmesh.router.v1.router_pb2_grpc import RouterServiceAsyncStub

Step = router_pb2.StreamGenerateChatResponse

LIST_SECONDS = 5.0
"""Longest wait for the list of models."""

log = get_logger()


class RouterPeer:
    """Calls the router; what it says of providers passes unchanged."""

    def __init__(self, stub: RouterServiceAsyncStub, answer_seconds: float) -> None:
        self._stub = stub
        self._answer_seconds = answer_seconds

    async def models(self) -> Sequence[router_pb2.Model]:
        """Every public model. Raises DependencyUnavailable."""
        try:
            response = await self._stub.ListModels(router_pb2.ListModelsRequest(), timeout=LIST_SECONDS)
        except grpc.aio.AioRpcError as error:
            log.warning("router_unavailable", code=error.code().name, details=error.details())
            message = "The models are not known right now: retry in a moment."
            raise DependencyUnavailable(message, retry_after_seconds=2) from error
        return response.models

    async def generate(
        self, request: router_pb2.StreamGenerateChatRequest
    ) -> AsyncGenerator[router_pb2.StreamGenerateChatResponse, None]:
        """Stream an answer; closing the generator stops the provider."""
        call = self._stub.StreamGenerateChat(request, timeout=time_left(self._answer_seconds))
        try:
            async for response in call:
                for step in unpacked(response):
                    yield step
        finally:
            call.cancel()

    async def explain(self, request: router_pb2.ExplainRouteRequest) -> router_pb2.RouteExplanation:
        """How a request would be routed."""
        return (await self._stub.ExplainRoute(request, timeout=time_left(LIST_SECONDS))).explanation

    async def embed(self, request: router_pb2.EmbedTextRequest) -> router_pb2.EmbedTextResponse:
        """Embed texts."""
        return await self._stub.EmbedText(request, timeout=time_left(self._answer_seconds))


def unpacked(response: Step) -> Iterator[Step]:
    """A message of an answer as the steps that travel in it: a route, a piece or an end each."""
    if response.route.HasField("first"):
        yield response
        yield Step(delta=response.route.first)
        return
    if response.finished.HasField("route"):
        yield Step(route=response.finished.route)
    if response.finished.HasField("last"):
        yield Step(delta=response.finished.last)
    yield response
