"""YandexGPT and its neighbours, by the native REST API of Yandex AI Studio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import partial

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import Cargo
from services.router.endpoints import YandexDeployment
from services.router.providers.answer_reader import AnswerReader
from services.router.providers.batches import embedded_in_batches
from services.router.providers.http import Endpoint
from services.router.providers.json_lines import LineParser
from services.router.providers.provider import AnswerEvent, Condition, Embedded
from services.router.providers.stops import until_stop
from services.router.providers.yandex_answer import CumulativeAnswer, embedded_text
from services.router.providers.yandex_request import chat_body, embedding_body


class YandexProvider:
    """One model in one folder."""

    def __init__(self, deployment: YandexDeployment, endpoint: Endpoint, folder: str) -> None:
        self._deployment = deployment
        self._endpoint = endpoint
        scheme = "emb" if deployment.embeds else "gpt"
        self._model_uri = f"{scheme}://{folder}/{deployment.model}/{deployment.branch}"

    def stream_chat(self, prompt: chat_pb2.ChatPrompt, cargo: Cargo) -> AsyncGenerator[AnswerEvent, None]:
        """Answer as the model speaks; closing hangs up."""
        answer = CumulativeAnswer(may_append=self._deployment.corrections == "append")
        reader = AnswerReader(LineParser(), answer.as_openai)
        events = self._endpoint.stream("/completion", chat_body(prompt, self._model_uri), prompt, reader, cargo)
        return until_stop(events, prompt.options.stop)

    async def embed(self, texts: Sequence[str], cargo: Cargo) -> Embedded:
        """Embed texts, each in a request of its own: it takes no more."""
        return await embedded_in_batches(texts, 1, partial(self._embed, cargo=cargo))

    async def condition(self) -> Condition:
        """Ask where the routes say how; elsewhere say that it can be called."""
        return await self._endpoint.condition(self._deployment.health_path)

    async def _embed(self, texts: Sequence[str], cargo: Cargo) -> Embedded:
        (text,) = texts
        return embedded_text(
            await self._endpoint.answer("/textEmbedding", embedding_body(text, self._model_uri), cargo)
        )
