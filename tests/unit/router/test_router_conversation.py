"""Calls and their results, as providers are told them that know no ids of calls."""

from __future__ import annotations

import pytest

from llmmesh.chat.v1 import chat_pb2
from services.router.providers.conversation import Exchange, exchanges
from services.router.providers.provider import FailureKind, ProviderFailure


def call(call_id: str, name: str) -> chat_pb2.ChatMessage:
    return chat_pb2.ChatMessage(
        role=chat_pb2.ROLE_ASSISTANT, tool_calls=[chat_pb2.ToolCall(id=call_id, name=name, arguments="{}")]
    )


def result(call_id: str, text: str) -> chat_pb2.ChatMessage:
    content = [chat_pb2.ContentPart(text=text)]
    return chat_pb2.ChatMessage(role=chat_pb2.ROLE_TOOL, tool_call_id=call_id, content=content)


def told(*messages: chat_pb2.ChatMessage) -> list[tuple[str, str | None]]:
    return [(turn.call.name, turn.result) for turn in exchanges(messages) if isinstance(turn, Exchange)]


def test_an_id_that_comes_again_in_a_later_turn_leaves_each_call_its_own_result():
    said = told(call("x", "paris"), result("x", "rain"), call("x", "rome"), result("x", "sun"))
    assert said == [("paris", "rain"), ("rome", "sun")]


def test_a_call_nobody_answered_takes_no_result_of_a_later_one():
    assert told(call("x", "paris"), call("x", "rome"), result("x", "sun")) == [("paris", None), ("rome", "sun")]


def test_a_result_before_its_call_is_the_requests_fault():
    with pytest.raises(ProviderFailure) as caught:
        told(result("x", "rain"), call("x", "paris"))
    assert (caught.value.kind, "tool_call_id" in caught.value.public) == (FailureKind.REFUSED, True)
