"""What a chat may use at most, before anybody is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmmesh.billing.v1 import billing_pb2
from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid
from services.gateway.catalogue import Offer
from services.gateway.exchange import Question
from services.gateway.tokens import image_count, prompt_token_bound


@dataclass(frozen=True, slots=True)
class Plan:
    """The worst case of one chat."""

    prompt: chat_pb2.ChatPrompt
    """As the router gets it: with a limit also where the caller set none."""
    offer: Offer
    input_tokens: int
    max_output_tokens: int
    max_cost_micros: int | None = None
    """The most that it may cost; None when nobody says."""

    def reservation(self, request_id: str) -> billing_pb2.CreateReservationRequest:
        """The request that holds its price."""
        return billing_pb2.CreateReservationRequest(
            request_id=request_id,
            model=self.offer.model,
            deployments=self.offer.deployments,
            input_tokens=self.input_tokens,
            max_output_tokens=self.max_output_tokens,
            image_count=image_count(self.prompt),
            max_cost_micros=self.max_cost_micros,
        )

    def repeated(self, prompt: chat_pb2.ChatPrompt, spent_micros: int | None) -> Plan:
        """The worst case of asking once more, with a prompt that has grown; what the first cost may be unknown."""
        grown = prompt_token_bound(prompt) - prompt_token_bound(self.prompt)
        left = self.max_cost_micros
        if left is not None:
            left = max(0, left - (left if spent_micros is None else spent_micros))
        return replace(
            self,
            prompt=prompt,
            input_tokens=min(self.input_tokens + grown, self.offer.context_tokens),
            max_cost_micros=left,
        )


def planned(
    question: Question,
    offer: Offer,
    default_max_output_tokens: int,
    added_input_tokens: int = 0,
    max_cost_micros: int | None = None,
) -> Plan:
    """Bound the tokens of a chat, and its cost; an experiment may have some added to the prompt.

    A caller who sets no limit gets the default where prompt and answer are sure to fit the context; where they may
    not, the context itself is the limit.

    Raises:
        FieldInvalid: If the caller's limit is more than the model's context.
    """
    prompt, context = question.prompt, offer.context_tokens
    input_tokens = min(prompt_token_bound(prompt) + added_input_tokens, context)
    if prompt.options.HasField("max_output_tokens"):
        limit = prompt.options.max_output_tokens
        if limit > context:
            field = question.output_limit_field
            raise FieldInvalid(field, f"must be at most {context}, the context of {offer.model!r}")
        return Plan(prompt, offer, input_tokens, limit, max_cost_micros)
    if input_tokens + default_max_output_tokens > context:
        return Plan(prompt, offer, input_tokens, context, max_cost_micros)
    limited = chat_pb2.ChatPrompt()
    limited.CopyFrom(prompt)
    limited.options.max_output_tokens = default_max_output_tokens
    return Plan(limited, offer, input_tokens, default_max_output_tokens, max_cost_micros)
