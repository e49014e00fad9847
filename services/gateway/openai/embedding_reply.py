"""Embeddings as OpenAI writes them."""

from __future__ import annotations

import struct
from base64 import b64encode
from typing import Any

from llmmesh.router.v1 import router_pb2
from meshkit.usage import all_input_tokens
from services.gateway.embedding import EmbeddedTexts
from services.gateway.openai.embedding_request import EmbeddingRequest
from services.gateway.openai.report import encoder, report_object


def embedding_reply(asked: EmbeddingRequest, embedded: EmbeddedTexts) -> bytes:
    """The vectors as one object."""
    usage = embedded.usage
    tokens = all_input_tokens(usage)
    data = [_item(index, vector, base64=asked.base64) for index, vector in enumerate(embedded.vectors)]
    return encoder.encode(
        {
            "object": "list",
            "data": data,
            "model": asked.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "llmmesh": report_object(embedded.report, usage),
        }
    )


def _item(index: int, vector: router_pb2.Embedding, *, base64: bool) -> dict[str, Any]:
    values: str | list[float] = list(vector.values)
    if base64:
        values = b64encode(struct.pack(f"<{len(vector.values)}f", *vector.values)).decode()
    return {"object": "embedding", "index": index, "embedding": values}
