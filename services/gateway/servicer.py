"""The typed face: decode and check, call, encode."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace

from google.protobuf import duration_pb2

from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from llmmesh.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer
from meshkit.server import Context, Last, says_last
from services.gateway.cache_control import control_in_headers, control_in_message
from services.gateway.caller import checked_data_class, identified, stated_data_class
from services.gateway.catalogue import Offer
from services.gateway.chat import Chat
from services.gateway.embedding import Embedding
from services.gateway.exchange import DataClass, Finished, Question, Report, Route
from services.gateway.explaining import Explaining, UnsentRequest
from services.gateway.max_cost import checked_micros, least, max_cost_in_headers
from services.gateway.replay import collected
from services.gateway.resources import Knowledge
from services.gateway.validation import check_json, check_model, check_prompt, check_size, check_texts

Step = gateway_pb2.StreamGenerateChatResponse


class GatewayServicer(GatewayServiceServicer):
    """Chat, embeddings and models for typed clients."""

    def __init__(self, chat: Chat, embedding: Embedding, explaining: Explaining, known: Knowledge) -> None:
        self._chat = chat
        self._embedding = embedding
        self._explaining = explaining
        self._known = known

    async def GenerateChat(
        self, request: gateway_pb2.GenerateChatRequest, context: Context
    ) -> gateway_pb2.GenerateChatResponse:
        """Answer in one message; a cancel stops the model."""
        question = _question(request, context)
        async with aclosing(self._chat.answer(question, identified())) as events:
            whole = await collected(events)
        return gateway_pb2.GenerateChatResponse(answer=whole.answer, report=_report(whole.finished.report))

    @says_last
    async def StreamGenerateChat(
        self, request: gateway_pb2.StreamGenerateChatRequest, context: Context
    ) -> AsyncGenerator[Step | Last[Step], None]:
        """Answer as the model speaks; a cancel stops it."""
        question = _question(request, context)
        finished: Finished | None = None
        async with aclosing(self._chat.answer(question, identified())) as events:
            async for event in events:
                if isinstance(event, Finished):
                    finished = event
                else:
                    yield _step(event)
        # Nobody asks for more after the last message: what is left to do for the answer is done before it.
        assert finished is not None
        yield Last(Step(finished=_finished(finished)))

    async def EmbedText(self, request: gateway_pb2.EmbedTextRequest, context: Context) -> gateway_pb2.EmbedTextResponse:
        """Embed texts."""
        check_model(request.model, "model")
        check_texts(request.texts, "texts")
        headers = context.invocation_metadata()
        data_class, max_cost_micros = stated_data_class(headers), _max_cost(request, headers)
        embedded = await self._embedding.embed(request.model, request.texts, identified(), data_class, max_cost_micros)
        vectors = [gateway_pb2.Embedding(values=vector.values) for vector in embedded.vectors]
        return gateway_pb2.EmbedTextResponse(embeddings=vectors, usage=embedded.usage)

    async def ExplainRoute(
        self, request: gateway_pb2.ExplainRouteRequest, context: Context
    ) -> gateway_pb2.ExplainRouteResponse:
        """How a request would be routed."""
        stated = stated_data_class(context.invocation_metadata())
        explanation = await self._explaining.explain(_unsent(request, stated), identified())
        return gateway_pb2.ExplainRouteResponse(explanation=explanation)

    async def ListModels(
        self, request: gateway_pb2.ListModelsRequest, context: Context
    ) -> gateway_pb2.ListModelsResponse:
        """The models the caller's tenant may use."""
        policy = await self._known.policies.admit(identified())
        offers = self._known.catalogue.offers(policy)
        return gateway_pb2.ListModelsResponse(models=[_model(offer) for offer in offers])


def _question(
    request: gateway_pb2.GenerateChatRequest | gateway_pb2.StreamGenerateChatRequest, context: Context
) -> Question:
    _check(request.prompt)
    asked = control_in_message(request.cache_mode, request.cache_control)
    headers = context.invocation_metadata()
    cache = asked.within(control_in_headers(headers))
    whole = isinstance(request, gateway_pb2.GenerateChatRequest)
    if whole:
        cache = replace(cache, pieces_per_second=None)
    data_class = stated_data_class(headers, request.data_class)
    return Question(request.prompt, cache, _named("max_output_tokens"), data_class, whole, _max_cost(request, headers))


def _max_cost(
    request: gateway_pb2.GenerateChatRequest | gateway_pb2.StreamGenerateChatRequest | gateway_pb2.EmbedTextRequest,
    headers: Iterable[tuple[str, str | bytes]] | None,
) -> int | None:
    asked = request.max_cost_micros if request.HasField("max_cost_micros") else None
    return least(checked_micros("max_cost_micros", asked), max_cost_in_headers(headers))


def _unsent(request: gateway_pb2.ExplainRouteRequest, stated: DataClass) -> UnsentRequest:
    if request.texts:
        check_model(request.prompt.model, "prompt.model")
        check_texts(request.texts, "texts")
    else:
        _check(request.prompt)
    data_class = checked_data_class(request.data_class)
    return UnsentRequest(request.prompt, request.texts, data_class, stated, request.tenant_id)


def _check(prompt: chat_pb2.ChatPrompt) -> None:
    check_size(prompt, "prompt")
    check_prompt(prompt, _named)
    check_json(prompt, _named)


def _named(field: str) -> str:
    """Where a field of ChatPrompt, or of its options, stands in the request."""
    return f"prompt.{field}" if field in ("model", "messages") else f"prompt.options.{field}"


def _step(event: Route | chat_pb2.Delta) -> Step:
    if isinstance(event, chat_pb2.Delta):
        return Step(delta=event)
    route = gateway_pb2.Route(provider=event.provider, deployment=event.deployment, cache_status=event.cache_status)
    return Step(route=route)


def _finished(event: Finished) -> gateway_pb2.Finished:
    return gateway_pb2.Finished(finish_reason=event.finish_reason, usage=event.usage, report=_report(event.report))


def _report(report: Report) -> gateway_pb2.AnswerReport:
    overhead = duration_pb2.Duration()
    overhead.FromMicroseconds(int(report.overhead_seconds * 1_000_000))
    return gateway_pb2.AnswerReport(
        request_id=report.request_id,
        provider=report.provider,
        deployment=report.deployment,
        cache_status=report.cache_status,
        cost_micros=report.cost_micros or 0,
        currency_code=report.currency_code,
        overhead=overhead,
        stopped_for=report.stopped_for,
    )


def _model(offer: Offer) -> gateway_pb2.Model:
    return gateway_pb2.Model(
        name=offer.model, providers=offer.providers, embeds=offer.embeds, context_tokens=offer.context_tokens
    )
