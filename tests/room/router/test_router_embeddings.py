"""Texts into vectors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import error_reason
from tests.support.router_room import RouterRoom, cloud, ours


@pytest.fixture
async def room(make_room) -> AsyncIterator[RouterRoom]:
    def entries(cheap, _):
        return [
            cloud("cheap", cheap, serves="e", embeds=True),
            ours("own", serves="e", embeds=True),
            ours("chat", serves="m"),
        ]

    async with make_room(entries) as running_room:
        yield running_room


async def embed(room: RouterRoom, *texts: str, model: str = "e", **changes) -> router_pb2.EmbedTextResponse:
    request = router_pb2.EmbedTextRequest(model=model, texts=texts, constraints=room.constraints(**changes))
    return await room.stub.EmbedText(request, timeout=20)


async def test_vectors_come_from_an_http_provider_in_order(room):
    both, alone = await embed(room, "fox", "dog"), await embed(room, "dog")
    assert len(both.embeddings[0].values) == 8
    assert both.embeddings[1] == alone.embeddings[0]
    assert both.route.deployment == "cheap"
    assert (both.usage.input_tokens, both.usage.estimated) == (2, False)


async def test_the_next_deployment_embeds_when_one_fails(room):
    room.cheap.set(fail_next=1)
    answer = await embed(room, "fox")
    assert (answer.route.deployment, list(answer.embeddings[0].values)) == ("own", [0.5, 3.0])
    assert answer.usage.input_tokens == 3
    assert [each.deployment for each in answer.route.failed_attempts] == ["cheap"]


async def test_many_texts_are_embedded_by_our_own_model_in_order(room):
    texts = ["x" * (1 + number % 7) for number in range(150)]
    answer = await embed(room, *texts, data_class=chat_pb2.DATA_CLASS_SENSITIVE)
    assert [vector.values[1] for vector in answer.embeddings] == [len(text) for text in texts]
    assert answer.usage.input_tokens == 9


async def test_sensitive_texts_stay_on_our_own_machines(room):
    answer = await embed(room, "my passport", data_class=chat_pb2.DATA_CLASS_SENSITIVE)
    assert answer.route.deployment == "own"
    assert room.cheap.counters.requests == 0


@pytest.mark.parametrize(
    ("texts", "model", "reason"),
    [
        ([], "e", "FIELD_INVALID"),
        (["a", ""], "e", "FIELD_INVALID"),
        (["x"] * 2049, "e", "FIELD_INVALID"),
        (["x"], "m", "FIELD_INVALID"),
        (["x"], "missing", "MODEL_NOT_FOUND"),
        (["many words " * 1000], "e", "CONTEXT_TOO_LONG"),
    ],
)
async def test_what_cannot_be_embedded_is_refused(room, texts, model, reason):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await embed(room, *texts, model=model)
    assert error_reason(caught.value) == reason


async def test_an_embedding_model_does_not_chat(room):
    error = await room.failure(model="e")
    assert error_reason(error) == "FIELD_INVALID"
    assert "embedding model" in error.details()
