"""What a chat model is asked, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import ContextTooLong, FieldInvalid
from services.inference.conversation import Turn
from services.inference.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Question:
    """One conversation to continue."""

    turns: Sequence[Turn]
    sampling: Sampling
    tenant_id: str = ""
    """Whose it is: tenants never share a prefix cache, whose timing would tell one what another asked."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text the engine has written, with the tokens it stands for."""

    text: str
    output_tokens: int
    finish_reason: chat_pb2.FinishReason.ValueType | None = None
    """Set on the last piece."""
    cached_tokens: int = 0
    """Prompt tokens read from the prefix cache; known on the last piece."""
    first_tokens: Mapping[str, float] = field(default_factory=dict)
    """Of the first piece, where asked for: the likeliest first tokens and their probabilities, likeliest first."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why an answer ended, and what it used."""

    finish_reason: chat_pb2.FinishReason.ValueType
    usage: chat_pb2.TokenUsage


@dataclass(frozen=True, slots=True)
class Completion:
    """A text continued."""

    text: str
    first_tokens: Mapping[str, float]
    usage: chat_pb2.TokenUsage


def output_limit(prompt_tokens: int, wanted: int | None, context_tokens: int) -> int:
    """Tokens the answer may have: what the caller wanted, else all the context that is left.

    Raises:
        ContextTooLong: If prompt and answer do not fit.
    """
    room = context_tokens - prompt_tokens
    if room < 1 or (wanted or 1) > room:
        asked = f" and {wanted} for the answer" if wanted else ""
        raise ContextTooLong(
            f"{prompt_tokens} tokens of prompt{asked} do not fit the model's {context_tokens}; shorten the "
            "conversation or lower max_output_tokens",
            prompt_tokens=str(prompt_tokens),
            context_tokens=str(context_tokens),
        )
    return wanted or room


def check_least(sampling: Sampling, limit: int) -> None:
    """Check that an answer does not have to be longer than it may.

    Raises:
        FieldInvalid: If `min_tokens` is above `limit`, the tokens it may have.
    """
    if sampling.parameters.get("min_tokens", 0) > limit:
        raise FieldInvalid("min_tokens", f"must be at most {limit}, which is all that the answer may have")
