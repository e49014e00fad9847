"""Tokens and money before and after: bounds, guesses, plans, settlements."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmmesh.billing.v1 import billing_pb2
from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from meshkit.errors import FieldInvalid
from meshkit.identity import Identity
from services.gateway.catalogue import Offer
from services.gateway.exchange import Exchange, Question
from services.gateway.planning import Plan, planned
from services.gateway.spending import Spending
from services.gateway.tokens import (
    IMAGE_TOKENS,
    estimated_prompt_tokens,
    estimated_tokens,
    prompt_token_bound,
    text_token_bound,
)

ADA = Identity("acme", "key-1", request_id="r1")


def prompt(*texts: str, **options: Any) -> chat_pb2.ChatPrompt:
    messages = [
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)]) for text in texts
    ]
    return chat_pb2.ChatPrompt(model="m", messages=messages, options=chat_pb2.GenerationOptions(**options))


def plan(asked: chat_pb2.ChatPrompt, context_tokens: int = 8192) -> Plan:
    offer = Offer("m", ("a/m", "b/m"), ("a", "b"), context_tokens, embeds=False)
    return planned(Question(asked, output_limit_field="max_tokens"), offer, 1000)


@given(st.lists(st.text()))
def test_the_bound_is_never_less_than_the_bytes_or_the_guess(texts: list[str]) -> None:
    asked = prompt(*texts)
    assert prompt_token_bound(asked) >= sum(len(text.encode()) for text in texts)
    assert prompt_token_bound(asked) >= estimated_prompt_tokens(asked)
    assert text_token_bound(texts) >= sum(map(estimated_tokens, texts))


def test_everything_that_reaches_the_model_counts() -> None:
    asked = prompt("hello", tools_json=["x" * 100], response_format_json="y" * 50, extra_json={"k": "z" * 25})
    asked.messages[0].content.add(image_url=chat_pb2.ImageUrl(url="data:image/png;base64," + "A" * 10**6))
    asked.messages[0].content.add(raw_json="{}" * 10)
    asked.messages[0].tool_calls.add(name="f", arguments="1" * 30)
    assert prompt_token_bound(asked) - prompt_token_bound(prompt("hello")) == 100 + 50 + 25 + IMAGE_TOKENS + 20 + 31


def test_the_guess_knows_that_other_scripts_take_more() -> None:
    assert estimated_tokens("") == 0
    assert estimated_tokens("four" * 10) == 10
    assert estimated_tokens("лисица") == 3


def test_the_guess_counts_tools_and_the_form_of_the_answer() -> None:
    described = prompt("hello", tools_json=["x" * 100, "y" * 20], response_format_json="z" * 40)
    assert estimated_prompt_tokens(described) - estimated_prompt_tokens(prompt("hello")) == 25 + 5 + 10
    assert prompt_token_bound(described) >= estimated_prompt_tokens(described)


def test_the_callers_limit_is_the_plan() -> None:
    made = plan(prompt("hi", max_output_tokens=16))
    assert made.max_output_tokens == 16
    assert made.prompt.options.max_output_tokens == 16


def test_a_limit_beyond_the_context_is_refused_by_its_name() -> None:
    with pytest.raises(FieldInvalid) as caught:
        plan(prompt("hi", max_output_tokens=8193))
    assert caught.value.metadata["field"] == "max_tokens"


def test_without_a_limit_the_default_is_set_for_the_provider_only() -> None:
    asked = prompt("hi")
    made = plan(asked)
    assert (made.max_output_tokens, made.prompt.options.max_output_tokens) == (1000, 1000)
    assert not asked.options.HasField("max_output_tokens")


def test_without_room_for_the_default_the_context_is_the_limit() -> None:
    made = plan(prompt("x" * 500), context_tokens=1200)
    assert made.max_output_tokens == 1200
    assert not made.prompt.options.HasField("max_output_tokens")


def test_a_reservation_names_every_deployment_that_may_answer() -> None:
    request = plan(prompt("hi", max_output_tokens=16)).reservation("r1")
    assert list(request.deployments) == ["a/m", "b/m"]
    assert (request.request_id, request.model, request.max_output_tokens) == ("r1", "m", 16)


class Money:
    """A reservation whose settlements the test looks at."""

    def __init__(self) -> None:
        self.exchange = Exchange(ADA, "m")
        self.settlements: list[Any] = []
        asked = billing_pb2.CreateReservationRequest()
        reservation = billing_pb2.Reservation(id="res-1", currency_code="RUB")
        # Leaving the block never asks billing itself.
        self.spending = Spending(self.exchange, asked, reservation, lambda: 7, None, self._later)

    def _later(self, settlement: Any) -> bool:
        self.settlements.append(settlement)
        return True


def test_an_answer_nobody_began_is_let_go() -> None:
    money = Money()
    with pytest.raises(ConnectionError), money.spending:
        raise ConnectionError
    (settlement,) = money.settlements
    assert (settlement.reservation_id, settlement.commit, settlement.owner) == ("res-1", None, ADA)


def test_an_answer_that_broke_off_is_billed_by_our_own_count() -> None:
    money = Money()
    money.spending.begin(router_pb2.RouteChosen(deployment="a/m", provider="a"))
    money.spending.count(chat_pb2.Delta(text="four" * 3, reasoning="four"))
    money.spending.count(chat_pb2.Delta(tool_calls=[chat_pb2.ToolCallDelta(name="f", arguments="123")]))
    with pytest.raises(ConnectionError), money.spending:
        raise ConnectionError
    (settlement,) = money.settlements
    usage = settlement.commit.usage
    assert (settlement.commit.deployment, settlement.commit.provider) == ("a/m", "a")
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens, usage.estimated) == (7, 4, 1, True)
    assert settlement.commit.finish_reason == chat_pb2.FINISH_REASON_UNSPECIFIED
