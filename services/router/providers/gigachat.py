"""GigaChat, by its own API (v1)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import Cargo
from services.router.endpoints import GigaChatDeployment
from services.router.providers.answer_reader import AnswerReader, embedded
from services.router.providers.gate import Gate
from services.router.providers.gigachat_answer import chunk_as_openai, embeddings_as_openai
from services.router.providers.gigachat_request import chat_body, embeddings_body
from services.router.providers.http import Endpoint
from services.router.providers.provider import AnswerEvent, Condition, Embedded
from services.router.providers.stops import until_stop


class GigaChatProvider:
    """One model of GigaChat; `gate` is shared by all the deployments of one credential."""

    def __init__(self, deployment: GigaChatDeployment, endpoint: Endpoint, gate: Gate) -> None:
        self._deployment = deployment
        self._endpoint = endpoint
        self._gate = gate

    async def stream_chat(self, prompt: chat_pb2.ChatPrompt, cargo: Cargo) -> AsyncGenerator[AnswerEvent, None]:
        """Answer as the model speaks, once it is our turn; closing hangs up and gives the turn away."""
        body = chat_body(prompt, self._deployment)
        reader = AnswerReader(as_openai=partial(chunk_as_openai, precached=self._deployment.precached))
        async with (
            self._gate.passed(),
            aclosing(self._endpoint.stream("/chat/completions", body, prompt, reader, cargo)) as answer,
            aclosing(until_stop(answer, prompt.options.stop)) as events,
        ):
            async for event in events:
                yield event

    async def embed(self, texts: Sequence[str], cargo: Cargo) -> Embedded:
        """Embed texts in one request."""
        async with self._gate.passed():
            answer = await self._endpoint.answer("/embeddings", embeddings_body(texts, self._deployment), cargo)
        return embedded(embeddings_as_openai(answer), len(texts))

    async def condition(self) -> Condition:
        """Ask where the routes say how, beside the answers under way; elsewhere say that it can be called."""
        return await self._endpoint.condition(self._deployment.health_path)
