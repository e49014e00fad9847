"""Any endpoint that speaks OpenAI's HTTP API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from urllib.parse import urljoin

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import Cargo
from services.router.endpoints import OpenAIDeployment
from services.router.providers.answer_reader import AnswerReader, embedded
from services.router.providers.batches import embedded_in_batches
from services.router.providers.http import Endpoint
from services.router.providers.openai_request import chat_body, embeddings_body
from services.router.providers.profiles import PROFILES
from services.router.providers.provider import AnswerEvent, Condition, Embedded
from services.router.providers.stops import until_stop


class OpenAIProvider:
    """One deployment behind an OpenAI-compatible endpoint."""

    def __init__(self, deployment: OpenAIDeployment, endpoint: Endpoint) -> None:
        self._deployment = deployment
        self._endpoint = endpoint
        self._profile = PROFILES[deployment.profile]

    def stream_chat(self, prompt: chat_pb2.ChatPrompt, cargo: Cargo) -> AsyncGenerator[AnswerEvent, None]:
        """Answer as the model speaks; closing hangs up."""
        body = chat_body(prompt, self._deployment)
        events = self._endpoint.stream("/chat/completions", body, prompt, AnswerReader(), cargo)
        return until_stop(events, prompt.options.stop) if "stop" in self._profile.withheld else events

    async def embed(self, texts: Sequence[str], cargo: Cargo) -> Embedded:
        """Embed texts, in as many requests as the endpoint's limit asks for."""
        return await embedded_in_batches(texts, self._profile.texts_per_request, partial(self._embed, cargo=cargo))

    async def condition(self) -> Condition:
        """Ask where the routes or the profile say how; elsewhere say that it can be called."""
        if self._profile.health_path and not self._deployment.health_path:
            return await self._endpoint.condition_at(urljoin(self._deployment.base_url, self._profile.health_path))
        return await self._endpoint.condition(self._deployment.health_path)

    async def _embed(self, texts: Sequence[str], cargo: Cargo) -> Embedded:
        answer = await self._endpoint.answer("/embeddings", embeddings_body(texts, self._deployment), cargo)
        return embedded(answer, len(texts))
