"""What travels together in the messages of an answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import ProviderStreamBroken
from meshkit.server import Last
from services.gateway.peers.router import unpacked
from services.router.messages import WHOLE_SECONDS, Message, Packing, messages
from services.router.routing import Chosen, Finished, RouteEvent

END = Finished(chat_pb2.FINISH_REASON_STOP, chat_pb2.TokenUsage(output_tokens=3), 0.5)


@pytest.fixture
def route(deployment) -> Chosen:
    return Chosen(deployment("here"), ())


def says(text: str) -> chat_pb2.Delta:
    return chat_pb2.Delta(text=text)


async def events(*said: RouteEvent | Exception) -> AsyncGenerator[RouteEvent, None]:
    for event in said:
        if isinstance(event, Exception):
            raise event
        yield event


async def packed(*said: RouteEvent, whole: bool) -> list[Message]:
    return [
        message.message if isinstance(message, Last) else message
        async for message in messages(events(*said), whole=whole)
    ]


def texts(sent: list[Message]) -> list[str]:
    return [step.delta.text for message in sent for step in unpacked(message) if step.HasField("delta")]


def steps(sent: list[Message]) -> list[str | None]:
    return [step.WhichOneof("event") for message in sent for step in unpacked(message)]


async def test_the_first_piece_comes_with_the_route(route):
    sent = await packed(route, says("a"), says("b"), END, whole=False)
    assert [message.WhichOneof("event") for message in sent] == ["route", "delta", "finished"]
    assert sent[0].route.first == says("a")
    assert texts(sent) == ["a", "b"]


async def test_what_is_read_at_its_end_takes_two_messages_when_it_is_quick(route):
    sent = await packed(route, says("a"), says("b"), says("c"), END, whole=True)
    assert [message.WhichOneof("event") for message in sent] == ["route", "finished"]
    assert sent[1].finished.usage == END.usage
    assert texts(sent) == ["a", "bc"]


@pytest.mark.parametrize("whole", [True, False])
async def test_what_is_there_at_once_is_one_message(route, whole):
    (message,) = await packed(route, replace(END, last=says("all")), whole=whole)
    assert steps([message]) == ["route", "delta", "finished"]
    assert (texts([message]), message.finished.usage) == (["all"], END.usage)


async def test_what_is_said_with_the_end_travels_with_it(route):
    sent = await packed(route, says("a"), says("b"), replace(END, last=says("c")), whole=False)
    assert [message.WhichOneof("event") for message in sent] == ["route", "delta", "finished"]
    assert texts(sent) == ["a", "b", "c"]


async def test_an_answer_without_a_piece_has_its_route(route):
    sent = await packed(route, END, whole=True)
    assert steps(sent) == ["route", "finished"]


async def test_a_piece_waits_no_longer_than_the_window(route):
    now = 0.0
    packing = Packing(whole=True, clock=lambda: now)
    sent = [*packing.take(route), *packing.take(says("a")), *packing.take(says("b"))]
    now = WHOLE_SECONDS
    sent += packing.take(says("c"))
    assert texts(sent) == ["a", "bc"]


async def test_what_waits_is_sent_before_a_failure(route):
    sent: list[Message] = []

    async def gather() -> None:
        broken = ProviderStreamBroken("It broke off.")
        async for message in messages(events(route, says("a"), says("b"), broken), whole=True):
            sent.append(message)  # noqa: PERF401 - what came before the failure is kept

    with pytest.raises(ProviderStreamBroken):
        await gather()
    assert texts(sent) == ["a", "b"]
