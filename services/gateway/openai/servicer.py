"""OpenAI's API: decode and check, call, encode."""

from __future__ import annotations

from contextlib import aclosing

from google.api import httpbody_pb2

from llmmesh.gateway.v1 import openai_pb2
from llmmesh.gateway.v1.openai_pb2_grpc import OpenAIServiceServicer
from meshkit.identity import Identity
from meshkit.server import Context, says_last
from services.gateway.cache_control import control_in_headers
from services.gateway.caller import identified, stated_data_class
from services.gateway.chat import Chat
from services.gateway.embedding import Embedding
from services.gateway.headers import closing_headers
from services.gateway.max_cost import max_cost_in_headers
from services.gateway.openai.chat_reply import ChatReply
from services.gateway.openai.chat_request import ChatRequest, decode_chat_request
from services.gateway.openai.delivery import JSON, Bodies, Reply, streamed, whole
from services.gateway.openai.embedding_reply import embedding_reply
from services.gateway.openai.embedding_request import decode_embedding_request
from services.gateway.openai.model_reply import model_reply, models_reply
from services.gateway.openai.short_reply import ShortReply
from services.gateway.resources import Knowledge


class OpenAIServicer(OpenAIServiceServicer):
    """OpenAI's own JSON and event streams, as raw bytes."""

    def __init__(self, chat: Chat, embedding: Embedding, known: Knowledge, default_model: str) -> None:
        self._chat = chat
        self._embedding = embedding
        self._known = known
        self._default_model = default_model

    @says_last
    async def CreateChatCompletion(self, request: openai_pb2.CreateChatCompletionRequest, context: Context) -> Bodies:
        """Answer at once or as the model speaks; a caller who hangs up stops the model."""
        headers = context.invocation_metadata()
        asked = decode_chat_request(
            request.body.data,
            default_model=self._default_model,
            cache=control_in_headers(headers),
            data_class=stated_data_class(headers),
            max_cost_micros=max_cost_in_headers(headers),
        )
        caller = identified()
        deliver = streamed if asked.stream else whole
        async with (
            aclosing(self._chat.answer(asked.question, caller)) as events,
            aclosing(deliver(events, _reply(asked, caller), context)) as bodies,
        ):
            async for body in bodies:
                yield body

    async def CreateEmbedding(
        self, request: openai_pb2.CreateEmbeddingRequest, context: Context
    ) -> httpbody_pb2.HttpBody:
        """Embed texts."""
        headers = context.invocation_metadata()
        asked = decode_embedding_request(request.body.data)
        data_class, max_cost_micros = stated_data_class(headers), max_cost_in_headers(headers)
        embedded = await self._embedding.embed(asked.model, asked.texts, identified(), data_class, max_cost_micros)
        await context.send_initial_metadata(closing_headers(embedded.report))
        return httpbody_pb2.HttpBody(content_type=JSON, data=embedding_reply(asked, embedded))

    async def ListOpenAIModels(
        self, request: openai_pb2.ListOpenAIModelsRequest, context: Context
    ) -> httpbody_pb2.HttpBody:
        """The models the caller's tenant may use."""
        policy = await self._known.policies.admit(identified())
        return httpbody_pb2.HttpBody(content_type=JSON, data=models_reply(self._known.catalogue.offers(policy)))

    async def GetOpenAIModel(
        self, request: openai_pb2.GetOpenAIModelRequest, context: Context
    ) -> httpbody_pb2.HttpBody:
        """One of them."""
        policy = await self._known.policies.admit(identified())
        offer = self._known.catalogue.visible_offer(request.model, policy)
        return httpbody_pb2.HttpBody(content_type=JSON, data=model_reply(offer))


def _reply(asked: ChatRequest, caller: Identity) -> Reply:
    model = asked.question.prompt.model
    return ShortReply(model) if asked.short else ChatReply(caller.request_id, model, include_usage=asked.include_usage)
