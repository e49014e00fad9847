"""The typed face: the same answers as OpenAI's, in messages of our own."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from services.gateway.validation import MOST_PIECES
from tests.support.gateway_room import CALL_SECONDS, Front, Tenant, audit_events, eventually, typed_prompt

FOX = "The quick brown fox jumps over the lazy dog."


async def test_the_typed_face_gets_the_same_answer(tenant: Tenant, front: Front) -> None:
    asked = typed_prompt("Typed fox?")
    whole = await front.typed.GenerateChat(asked, metadata=tenant.metadata(), timeout=CALL_SECONDS)
    streaming = gateway_pb2.StreamGenerateChatRequest(prompt=asked.prompt, cache_mode=gateway_pb2.CACHE_MODE_BYPASS)
    call = front.typed.StreamGenerateChat(streaming, metadata=tenant.metadata(), timeout=CALL_SECONDS)
    steps = [step async for step in call]
    kinds = [step.WhichOneof("event") for step in steps]
    assert (whole.answer.text, whole.report.cache_status) == (FOX, gateway_pb2.CACHE_STATUS_MISS)
    assert whole.report.cost_micros > 0
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("route", "finished", {"delta"})
    assert "".join(step.delta.text for step in steps) == FOX
    assert steps[0].route.cache_status == gateway_pb2.CACHE_STATUS_BYPASS


async def test_a_typed_stream_is_kept_and_written_down_as_answered(tenant: Tenant, front: Front) -> None:
    asked = gateway_pb2.StreamGenerateChatRequest(prompt=typed_prompt("Typed, kept and heard again?").prompt)

    async def is_hit() -> bool:
        call = front.typed.StreamGenerateChat(asked, metadata=tenant.metadata(), timeout=CALL_SECONDS)
        steps = [step async for step in call]
        assert steps[-1].WhichOneof("event") == "finished"
        return bool(steps[0].route.cache_status == gateway_pb2.CACHE_STATUS_EXACT)

    await eventually(is_hit)
    assert {row.cache_status for row in await tenant.usage(rows=2)} == {"miss", "exact"}
    assert {event.outcome for event in await audit_events(tenant, rows=2)} == {"answered"}


async def test_the_typed_face_names_a_wrong_field_by_its_path(tenant: Tenant, front: Front) -> None:
    asked = typed_prompt("x")
    asked.prompt.options.temperature = 3
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await front.typed.GenerateChat(asked, metadata=tenant.metadata(), timeout=CALL_SECONDS)
    assert "prompt.options.temperature" in (caught.value.details() or "")


async def test_typed_embeddings_and_models(tenant: Tenant, front: Front) -> None:
    request = gateway_pb2.EmbedTextRequest(model="e", texts=["fox"])
    embedded = await front.typed.EmbedText(request, metadata=tenant.metadata(), timeout=CALL_SECONDS)
    listed = await front.typed.ListModels(
        gateway_pb2.ListModelsRequest(), metadata=tenant.metadata(), timeout=CALL_SECONDS
    )
    assert len(embedded.embeddings[0].values) == 8
    assert [(model.name, model.embeds) for model in listed.models] == [("e", True), ("m", False)]


@pytest.mark.parametrize(
    "image",
    [
        chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url="http://169.254.169.254/latest/meta-data/")),
        chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url="file:///etc/passwd")),
        chat_pb2.ContentPart(raw_json='{"type":"image\\u005furl","image_url":{"url":"file:///etc/passwd"}}'),
    ],
    ids=["http", "file", "raw"],
)
async def test_an_image_that_a_provider_would_have_to_look_for_in_its_own_network_is_refused(
    tenant: Tenant, front: Front, image: chat_pb2.ContentPart
) -> None:
    asked = typed_prompt("What is there?")
    asked.prompt.messages[0].content.append(image)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await front.typed.GenerateChat(asked, metadata=tenant.metadata(), timeout=CALL_SECONDS)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "prompt.messages[0].content" in (caught.value.details() or "")
    assert front.first.counters.requests == 0


@pytest.mark.parametrize(
    "more",
    [
        chat_pb2.ChatPrompt(messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT)] * MOST_PIECES),
        chat_pb2.ChatPrompt(
            messages=[
                chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, content=[chat_pb2.ContentPart()] * MOST_PIECES)
            ]
        ),
        chat_pb2.ChatPrompt(options=chat_pb2.GenerationOptions(tools_json=["{}"] * MOST_PIECES)),
    ],
    ids=["messages", "parts", "tools"],
)
async def test_a_prompt_in_more_pieces_than_can_be_read_while_others_wait_is_refused(
    tenant: Tenant, front: Front, more: chat_pb2.ChatPrompt
) -> None:
    asked = typed_prompt("One piece more.")
    asked.prompt.MergeFrom(more)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await front.typed.GenerateChat(asked, metadata=tenant.metadata(), timeout=CALL_SECONDS)
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"prompt: must hold at most {MOST_PIECES} messages, parts, tool calls and options together",
    )


@pytest.mark.parametrize("number", [-1, 99])
@pytest.mark.parametrize(
    ("rpc", "kind"),
    [("GenerateChat", gateway_pb2.GenerateChatRequest), ("ExplainRoute", gateway_pb2.ExplainRouteRequest)],
)
async def test_a_class_of_data_that_is_none_is_refused_and_leads_past_no_guard(
    front: Front, rpc: str, kind: Any, number: int
) -> None:
    daring = await front.tenant(guard_fail_open=True)
    asked = kind(prompt=typed_prompt("Who judges this?").prompt, data_class=number)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(front.typed, rpc)(asked, metadata=daring.metadata(), timeout=CALL_SECONDS)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").startswith("data_class: ")
    assert (front.guard.prompts, front.first.counters.requests) == ([], 0)


async def test_a_route_is_explained_for_data_as_sensitive_as_its_caller_says(tenant: Tenant, front: Front) -> None:
    asked = gateway_pb2.ExplainRouteRequest(prompt=typed_prompt("Where would it go?").prompt)
    metadata = tenant.metadata(x_llmmesh_data_class="confidential")
    told = await front.typed.ExplainRoute(asked, metadata=metadata, timeout=CALL_SECONDS)
    assert told.explanation.data_class == chat_pb2.DATA_CLASS_CONFIDENTIAL
    assert {candidate.place for candidate in told.explanation.candidates} == {0}
