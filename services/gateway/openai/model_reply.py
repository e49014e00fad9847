"""Models as OpenAI writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.gateway.catalogue import Offer
from services.gateway.openai.report import encoder


def models_reply(offers: Sequence[Offer]) -> bytes:
    """The list of models."""
    return encoder.encode({"object": "list", "data": [_model(offer) for offer in offers]})


def model_reply(offer: Offer) -> bytes:
    """One model."""
    return encoder.encode(_model(offer))


def _model(offer: Offer) -> dict[str, Any]:
    return {
        "id": offer.model,
        "object": "model",
        # Nobody records when a route was written; 0 keeps the field's type.
        "created": 0,
        "owned_by": offer.providers[0],
        "llmmesh": {
            "providers": list(offer.providers),
            "embeds": offer.embeds,
            "context_tokens": offer.context_tokens,
        },
    }
