"""An embeddings request of OpenAI's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from meshkit.errors import FieldInvalid
from services.gateway.openai.members import LONGEST_NAME, Members
from services.gateway.validation import check_model, check_number, check_texts

_string = msgspec.json.Decoder(str)
_input = msgspec.json.Decoder(str | list[msgspec.Raw])
_format = msgspec.json.Decoder(Literal["float", "base64"])


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A decoded request."""

    model: str
    texts: list[str]
    base64: bool
    """Whether vectors are wanted as base64 of little-endian float32."""


def decode_embedding_request(body: bytes) -> EmbeddingRequest:
    """Decode and check a request. Raises FieldInvalid naming the field at fault."""
    members = Members(body)
    model = members.take("model", _string) or ""
    check_model(model, "model")
    texts = _texts(members)
    encoding = members.take("encoding_format", _format)
    members.take("user", _string)
    for field in members.take_rest():
        raise FieldInvalid(field[:LONGEST_NAME], "is not supported for embeddings: leave it out")
    return EmbeddingRequest(model, texts, encoding == "base64")


def _texts(members: Members) -> list[str]:
    wire = members.take("input", _input)
    if wire is None:
        raise FieldInvalid("input", "must not be missing")
    check_number(wire if isinstance(wire, list) else [wire], "input")
    texts = [wire] if isinstance(wire, str) else [_text(raw, index) for index, raw in enumerate(wire)]
    check_texts(texts, "input")
    return texts


def _text(raw: msgspec.Raw, index: int) -> str:
    try:
        return _string.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FieldInvalid(f"input[{index}]", "must be a text: arrays of tokens are not supported") from error
