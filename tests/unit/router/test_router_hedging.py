"""What may be asked of two providers at once."""

from __future__ import annotations

import pytest

from llmmesh.chat.v1 import chat_pb2
from services.router.hedging import may_be_asked_twice
from services.router.preferences import Caller, Hedge, StrategyTable


@pytest.mark.parametrize(
    ("options", "may"),
    [
        ({}, True),
        ({"extra_json": {"top_k": "40"}}, True),
        ({"extra_json": {"store": "false"}}, True),
        ({"extra_json": {"store": "true"}}, False),
        ({"extra_json": {"background": "true"}}, False),
        ({"extra_json": {"previous_response_id": '"r-1"'}}, False),
        ({"tools_json": ['{"type": "function", "function": {"name": "f"}}']}, True),
        ({"tools_json": ['{"type": "function"}', '{"type": "code_interpreter"}']}, False),
        ({"tools_json": ["[]"]}, False),
    ],
    ids=str,
)
def test_what_a_provider_keeps_or_does_is_asked_of_one(options, may):
    assert may_be_asked_twice(chat_pb2.ChatPrompt(options=chat_pb2.GenerationOptions(**options))) is may


@pytest.mark.parametrize(
    ("model", "tags", "hedged"),
    [
        ("all", (), True),
        ("some", (), False),
        ("some", ("quick", "x"), True),
        ("some", ("x",), False),
        ("none", (), False),
    ],
)
def test_hedges_are_for_a_model_and_perhaps_for_tags(model, tags, hedged):
    table = StrategyTable(hedges={"all": Hedge(), "some": Hedge(tags=frozenset({"quick"}))})
    assert (table.hedge(model, Caller(tags=tags)) is not None) is hedged
