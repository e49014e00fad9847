"""Texts embedded through real rooms: routed, paid for, and kept where their class allows it."""

from __future__ import annotations

import struct
from base64 import b64decode
from typing import Any

import grpc
import orjson
import pytest
from google.api import httpbody_pb2

from llmmesh.gateway.v1 import gateway_pb2, openai_pb2
from meshkit.errors import error_reason
from tests.support.gateway_room import CALL_SECONDS, Front, Tenant


def over_openai(tenant: Tenant, body: dict[str, Any], **headers: str) -> Any:
    raw = httpbody_pb2.HttpBody(data=orjson.dumps({"model": "e", "input": ["fox", "лиса"], **body}))
    request = openai_pb2.CreateEmbeddingRequest(body=raw)
    return tenant.front.openai.CreateEmbedding(request, metadata=tenant.metadata(**headers), timeout=CALL_SECONDS)


def over_typed(tenant: Tenant, **headers: str) -> Any:
    request = gateway_pb2.EmbedTextRequest(model="e", texts=["fox"])
    return tenant.front.typed.EmbedText(request, metadata=tenant.metadata(**headers), timeout=CALL_SECONDS)


async def test_embeddings_are_routed_and_paid_for(tenant: Tenant) -> None:
    plain = orjson.loads((await over_openai(tenant, {})).data)
    packed = orjson.loads((await over_openai(tenant, {"encoding_format": "base64"})).data)
    assert [len(item["embedding"]) for item in plain["data"]] == [8, 8]
    unpacked = struct.unpack("<8f", b64decode(packed["data"][0]["embedding"]))
    assert unpacked == pytest.approx(plain["data"][0]["embedding"], rel=1e-6)
    rows = await tenant.usage(rows=2)
    assert all(row.deployment == "first/e" and row.cost_micros > 0 for row in rows)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        ("confidential", grpc.StatusCode.PERMISSION_DENIED, "REGION_NOT_ALLOWED"),
        ("harmless", grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
    ],
)
async def test_texts_go_nowhere_that_their_caller_does_not_trust_with_them(
    tenant: Tenant, front: Front, typed: bool, said: str, code: grpc.StatusCode, reason: str
) -> None:
    headers = {"x_llmmesh_data_class": said}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (over_typed(tenant, **headers) if typed else over_openai(tenant, {}, **headers))
    assert (caught.value.code(), error_reason(caught.value)) == (code, reason)
    assert front.first.counters.requests == 0
