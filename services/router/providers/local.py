"""Our own models: the inference room, through the mesh."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2

from llmmesh.chat.v1 import chat_pb2
from llmmesh.inference.v1 import inference_pb2
from meshkit.deadline import time_left
from meshkit.egress import Cargo
from meshkit.errors import error_reason, rpc_status
from services.router.deployment import LocalDeployment
from services.router.pacing import coalesced
from services.router.providers.provider import (
    AnswerEvent,
    Condition,
    Embedded,
    Ended,
    FailureKind,
    Health,
    ProviderFailure,
    Vector,
)

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub

CONDITION_SECONDS = 2.0
TEXTS_PER_CALL = 64
"""Small enough for the inference room, and for others to have their turn between."""

_KINDS = {
    "MODEL_WARMING": FailureKind.WARMING,
    "CONTEXT_TOO_LONG": FailureKind.TOO_LONG,
    "FIELD_INVALID": FailureKind.REFUSED,
    "MODEL_NOT_FOUND": FailureKind.NOT_FOUND,
    "RATE_LIMITED": FailureKind.THROTTLED,
}
_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: FailureKind.REFUSED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: FailureKind.THROTTLED,
    grpc.StatusCode.DEADLINE_EXCEEDED: FailureKind.TIMEOUT,
}
_STATES = {
    inference_pb2.MODEL_STATE_READY: Health.READY,
    inference_pb2.MODEL_STATE_WARMING: Health.WARMING,
}


class LocalProvider:
    """One model of the inference room."""

    def __init__(self, deployment: LocalDeployment, inference: InferenceServiceAsyncStub, pace_seconds: float) -> None:
        self._deployment = deployment
        self._destination = deployment.destination
        self._inference = inference
        self._pace_seconds = pace_seconds

    def stream_chat(self, prompt: chat_pb2.ChatPrompt, cargo: Cargo) -> AsyncGenerator[AnswerEvent, None]:
        """Answer as the model speaks; closing stops the engine."""
        return coalesced(self._events(prompt, cargo), self._pace_seconds)

    async def _events(self, prompt: chat_pb2.ChatPrompt, cargo: Cargo) -> AsyncGenerator[AnswerEvent, None]:
        self._destination.admit(cargo)
        call = self._inference.StreamGenerateChat(
            inference_pb2.StreamGenerateChatRequest(prompt=self._renamed(prompt)),
            timeout=time_left(at_most=self._deployment.timeouts.answer_seconds),
        )
        try:
            async for step in call:
                if step.HasField("delta"):
                    yield step.delta
                elif step.HasField("finished"):
                    yield Ended(step.finished.finish_reason, _usage(step.finished))
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        finally:
            call.cancel()

    async def embed(self, texts: Sequence[str], cargo: Cargo) -> Embedded:
        """Embed texts, in as many calls as the inference room's limits ask for."""
        self._destination.admit(cargo)
        vectors: list[Vector] = []
        input_tokens = 0
        for start in range(0, len(texts), TEXTS_PER_CALL):
            answer = await self._embed(texts[start : start + TEXTS_PER_CALL])
            vectors.extend(embedding.values for embedding in answer.embeddings)
            input_tokens += answer.input_tokens
        if len(vectors) != len(texts):
            raise ProviderFailure(FailureKind.MALFORMED, f"sent {len(vectors)} vectors for {len(texts)} texts")
        return Embedded(vectors, chat_pb2.TokenUsage(input_tokens=input_tokens) if input_tokens else None)

    async def _embed(self, texts: Sequence[str]) -> inference_pb2.EmbedTextResponse:
        request = inference_pb2.EmbedTextRequest(model=self._deployment.model, texts=texts)
        limit = time_left(at_most=self._deployment.timeouts.first_token_seconds)
        try:
            return await self._inference.EmbedText(request, timeout=limit)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def condition(self) -> Condition:
        """Ask the inference room about the model."""
        try:
            answer = await self._inference.ListModels(
                inference_pb2.ListModelsRequest(), timeout=time_left(at_most=CONDITION_SECONDS)
            )
        except grpc.aio.AioRpcError as error:
            return Condition(Health.UNAVAILABLE, f"the inference room did not answer: {error.code().name}")
        for model in answer.models:
            if model.name == self._deployment.model:
                return Condition(_STATES.get(model.state, Health.UNAVAILABLE), model.detail)
        return Condition(Health.UNAVAILABLE, f"the inference room serves no {self._deployment.model!r}")

    def _renamed(self, prompt: chat_pb2.ChatPrompt) -> chat_pb2.ChatPrompt:
        """The prompt under the model's own name."""
        if prompt.model == self._deployment.model:
            return prompt
        renamed = chat_pb2.ChatPrompt()
        renamed.CopyFrom(prompt)
        renamed.model = self._deployment.model
        return renamed


def _usage(finished: inference_pb2.Finished) -> chat_pb2.TokenUsage | None:
    return finished.usage if finished.HasField("usage") else None


def _failure(error: grpc.aio.AioRpcError) -> ProviderFailure:
    reason = error_reason(error)
    kind = _KINDS.get(reason or "") or _CODES.get(error.code(), FailureKind.UNAVAILABLE)
    return ProviderFailure(
        kind,
        f"inference failed with {error.code().name}, reason {reason or 'none'}",
        status=error.code().name,
        retry_after_seconds=_retry_after(error),
        public=(error.details() or "") if reason else "",
    )


def _retry_after(error: grpc.aio.AioRpcError) -> float | None:
    status = rpc_status(error)
    info = error_details_pb2.RetryInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return float(info.retry_delay.ToTimedelta().total_seconds())
    return None
