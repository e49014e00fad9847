"""The inference room's RPCs: decode and check, ask the model, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from llmmesh.chat.v1 import chat_pb2
from llmmesh.inference.v1 import inference_pb2
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceServicer
from meshkit.errors import FieldInvalid
from meshkit.identity import current_identity
from meshkit.server import Context
from services.inference.answers import Ending, Question
from services.inference.catalogue import Catalogue
from services.inference.config import InferenceConfig
from services.inference.conversation import turns_of
from services.inference.e5.encoder import NAME
from services.inference.e5.tokens import TokenVectors
from services.inference.sampling import likeliest, sampling_of
from services.inference.states import ModelState, ModelStatus

STATES = {
    ModelState.WARMING: inference_pb2.MODEL_STATE_WARMING,
    ModelState.READY: inference_pb2.MODEL_STATE_READY,
    ModelState.FAILED: inference_pb2.MODEL_STATE_FAILED,
}


class InferenceServicer(InferenceServiceServicer):
    """llmmesh.inference.v1.InferenceService."""

    def __init__(self, catalogue: Catalogue, config: InferenceConfig) -> None:
        self._catalogue = catalogue
        self._config = config

    async def StreamGenerateChat(
        self, request: inference_pb2.StreamGenerateChatRequest, context: Context
    ) -> AsyncIterator[inference_pb2.StreamGenerateChatResponse]:
        """Answer as the model speaks; a caller who hangs up stops the engine."""
        model = self._catalogue.chat_model(request.prompt.model)
        async with aclosing(model.answer(question_of(request.prompt))) as steps:
            async for step in steps:
                yield response_of(step)

    async def CompleteText(
        self, request: inference_pb2.CompleteTextRequest, context: Context
    ) -> inference_pb2.CompleteTextResponse:
        """Continue a text just as it stands; a caller who hangs up stops the engine."""
        model = self._catalogue.chat_model(request.model)
        sampling = likeliest(request.max_output_tokens, request.regex, request.first_tokens)
        completion = await model.complete(request.text, sampling, current_identity().tenant_id)
        return inference_pb2.CompleteTextResponse(
            text=completion.text,
            first_tokens=[
                inference_pb2.TokenProbability(token=token, probability=probability)
                for token, probability in completion.first_tokens.items()
            ],
            usage=completion.usage,
        )

    async def EmbedText(
        self, request: inference_pb2.EmbedTextRequest, context: Context
    ) -> inference_pb2.EmbedTextResponse:
        """Embed texts."""
        embedder = self._catalogue.embedder(request.model)
        check_texts(request.texts, self._config)
        if request.adapter not in embedder.adapters:
            raise FieldInvalid("adapter", f"must be one of {sorted(embedder.adapters)}")
        as_query = request.purpose != inference_pb2.EMBEDDING_PURPOSE_DOCUMENT
        texts = await embedder.embed(
            request.texts, as_query=as_query, with_tokens=request.token_vectors, adapter=request.adapter
        )
        return inference_pb2.EmbedTextResponse(
            embeddings=[
                inference_pb2.Embedding(values=text.vector, tokens=tokens_of(text.tokens, embedder.basis))
                for text in texts
            ],
            input_tokens=sum(text.input_tokens for text in texts),
            model=NAME,
            adapter=request.adapter,
        )

    async def ScorePairs(
        self, request: inference_pb2.ScorePairsRequest, context: Context
    ) -> inference_pb2.ScorePairsResponse:
        """Say of pairs how surely both questions ask the same."""
        embedder = self._catalogue.embedder(request.model)
        check_text(request.text, self._config, "text")
        check_texts(request.others, self._config, field="others")
        log_odds = await embedder.score(request.text, request.others)
        return inference_pb2.ScorePairsResponse(log_odds=log_odds, scorer=embedder.scorer)

    async def CountTokens(
        self, request: inference_pb2.CountTokensRequest, context: Context
    ) -> inference_pb2.CountTokensResponse:
        """Count a conversation's tokens."""
        model = self._catalogue.chat_model(request.prompt.model)
        return inference_pb2.CountTokensResponse(token_count=await model.count(turns_of(request.prompt.messages)))

    async def ListModels(
        self, request: inference_pb2.ListModelsRequest, context: Context
    ) -> inference_pb2.ListModelsResponse:
        """What is loaded, and what is loading."""
        return inference_pb2.ListModelsResponse(models=map(model_of, self._catalogue.statuses()))


def question_of(prompt: chat_pb2.ChatPrompt) -> Question:
    """Read and check a prompt."""
    return Question(turns_of(prompt.messages), sampling_of(prompt.options), current_identity().tenant_id)


def response_of(step: str | Ending) -> inference_pb2.StreamGenerateChatResponse:
    """One step of an answer on the wire."""
    if isinstance(step, str):
        return inference_pb2.StreamGenerateChatResponse(delta=chat_pb2.Delta(text=step))
    finished = inference_pb2.Finished(finish_reason=step.finish_reason, usage=step.usage)
    return inference_pb2.StreamGenerateChatResponse(finished=finished)


def check_texts(texts: Sequence[str], config: InferenceConfig, field: str = "texts") -> None:
    """Refuse lists that are empty or too long, and texts that are."""
    if not texts:
        raise FieldInvalid(field, "must hold at least one text")
    if len(texts) > config.embedding_max_texts:
        raise FieldInvalid(field, f"must hold at most {config.embedding_max_texts} texts")
    for index, text in enumerate(texts):
        check_text(text, config, f"{field}[{index}]")


def check_text(text: str, config: InferenceConfig, field: str) -> None:
    """Refuse a text that is empty or too long."""
    if not text:
        raise FieldInvalid(field, "must not be empty")
    if len(text) > config.embedding_max_characters:
        raise FieldInvalid(field, f"must be at most {config.embedding_max_characters} characters")


def tokens_of(tokens: TokenVectors | None, basis: str) -> inference_pb2.TokenVectors | None:
    """The tokens of a text on the wire."""
    if tokens is None:
        return None
    _, depths, dimensions = tokens.values.shape
    return inference_pb2.TokenVectors(
        values=tokens.values.tobytes(),
        depths=depths,
        dimensions=dimensions,
        rarities=tokens.rarity.tolist(),
        basis=basis,
    )


def model_of(status: ModelStatus) -> inference_pb2.Model:
    """A model on the wire."""
    return inference_pb2.Model(
        name=status.name,
        embeds=status.dimensions > 0,
        state=STATES[status.state],
        context_tokens=status.context_tokens,
        dimensions=status.dimensions,
        detail=status.detail,
    )
