"""OpenAI's embeddings request and reply."""

from __future__ import annotations

import struct
from base64 import b64decode
from typing import Any

import orjson
import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.gateway.v1 import gateway_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import FieldInvalid
from services.gateway.embedding import EmbeddedTexts
from services.gateway.exchange import Report
from services.gateway.openai.embedding_reply import embedding_reply
from services.gateway.openai.embedding_request import EmbeddingRequest, decode_embedding_request

REPORT = Report("r1", "local", "local/e5", gateway_pb2.CACHE_STATUS_UNSPECIFIED, 7, "RUB", 0.001)


def decode(**body: Any) -> EmbeddingRequest:
    return decode_embedding_request(orjson.dumps({"model": "e5", "input": "fox", **body}))


def test_one_text_and_many_are_accepted() -> None:
    assert decode().texts == ["fox"]
    assert decode(input=["fox", "лиса"], user="ada").texts == ["fox", "лиса"]
    assert decode(encoding_format="base64").base64
    assert not decode(encoding_format="float").base64


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [1, 2, 3]}, "input[0]"),
        ({"input": ["a", [1, 2]]}, "input[1]"),
        ({"input": 5}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 64}, "dimensions"),
        ({"truncate": True}, "truncate"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        decode(**change)
    assert caught.value.metadata["field"] == field


def reply(asked: EmbeddingRequest) -> Any:
    vectors = [router_pb2.Embedding(values=[0.5, -1.25]), router_pb2.Embedding(values=[1, 2])]
    usage = chat_pb2.TokenUsage(input_tokens=5, cached_input_tokens=1)
    return orjson.loads(embedding_reply(asked, EmbeddedTexts(vectors, usage, REPORT)))


def test_vectors_come_in_the_order_of_the_texts() -> None:
    answer = reply(EmbeddingRequest("e5", ["a", "b"], base64=False))
    assert [item["embedding"] for item in answer["data"]] == [[0.5, -1.25], [1, 2]]
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert answer["llmmesh"]["cost"] == 0.000007


def test_base64_is_little_endian_float32() -> None:
    answer = reply(EmbeddingRequest("e5", ["a", "b"], base64=True))
    assert struct.unpack("<2f", b64decode(answer["data"][0]["embedding"])) == (0.5, -1.25)
