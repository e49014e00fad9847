"""GigaChat, by its own API: answers in version 1 or 2, vectors in version 1."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import Cargo
from services.router.endpoints import GigaChatDeployment
from services.router.providers import gigachat_request, gigachat_v2_request
from services.router.providers.answer_reader import AnswerReader, embedded
from services.router.providers.gate import Gate
from services.router.providers.gigachat_answer import chunk_as_openai, embeddings_as_openai
from services.router.providers.gigachat_v2_answer import EventReader
from services.router.providers.http import Endpoint
from services.router.providers.provider import AnswerEvent, Condition, Embedded
from services.router.providers.stops import until_stop


class GigaChatProvider:
    """One model of GigaChat; `gate` is shared by all the deployments of one credential."""

    def __init__(self, deployment: GigaChatDeployment, endpoint: Endpoint, gate: Gate) -> None:
        self._deployment = deployment
        self._endpoint = endpoint
        self._chat = endpoint.at(deployment.chat_base_url)
        self._gate = gate

    async def stream_chat(self, prompt: chat_pb2.ChatPrompt, cargo: Cargo) -> AsyncGenerator[AnswerEvent, None]:
        """Answer as the model speaks, once it is our turn; closing hangs up and gives the turn away."""
        body, reader = _asked(prompt, self._deployment)
        async with (
            self._gate.passed(),
            aclosing(self._chat.stream("/chat/completions", body, prompt, reader, cargo)) as answer,
            aclosing(until_stop(answer, prompt.options.stop)) as events,
        ):
            async for event in events:
                yield event

    async def embed(self, texts: Sequence[str], cargo: Cargo) -> Embedded:
        """Embed texts in one request."""
        async with self._gate.passed():
            body = gigachat_request.embeddings_body(texts, self._deployment)
            answer = await self._endpoint.answer("/embeddings", body, cargo)
        return embedded(embeddings_as_openai(answer), len(texts))

    async def condition(self) -> Condition:
        """Ask where the routes say how, beside the answers under way; elsewhere say that it can be called."""
        return await self._endpoint.condition(self._deployment.health_path)


def _asked(prompt: chat_pb2.ChatPrompt, deployment: GigaChatDeployment) -> tuple[bytes, AnswerReader]:
    """The body of a request, and what reads its answer."""
    if deployment.api == "v2":
        reader = AnswerReader(as_openai=EventReader(deployment.precached).as_openai)
        return gigachat_v2_request.chat_body(prompt, deployment), reader
    reader = AnswerReader(as_openai=partial(chunk_as_openai, precached=deployment.precached))
    return gigachat_request.chat_body(prompt, deployment), reader
