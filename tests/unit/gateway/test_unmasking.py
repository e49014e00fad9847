"""The caller's words come back however an answer is cut, and nothing else changes."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmmesh.chat.v1 import chat_pb2
from llmmesh.router.v1 import router_pb2
from services.gateway.unmasking import Unmasking

ORIGINALS = {"[EMAIL_1]": "ivan@example.ru", "[EMAIL_12]": 'say "hi"\n', "[CARD_1]": "4111 1111 1111 1111"}
LONGEST = max(map(len, ORIGINALS))
many = settings(max_examples=1000)
texts = st.lists(
    st.one_of(st.sampled_from([*ORIGINALS, "[EMAIL_", "[EMAIL_1", "[[", "[CARD_2]", "[", "]"]), st.text(max_size=8))
).map("".join)


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    if draw(st.booleans()):
        return list(text)
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in itertools.pairwise([0, *places, len(text)])]


def restored(text: str) -> str:
    for placeholder, original in ORIGINALS.items():
        text = text.replace(placeholder, original)
    return text


@many
@given(st.data(), texts)
def test_all_placeholders_come_back_however_the_text_is_cut(data: st.DataObject, text: str) -> None:
    unmasking = Unmasking(ORIGINALS)
    shown = "".join(unmasking.restored(chat_pb2.Delta(text=piece)).text for piece in data.draw(cut(text)))
    assert shown + "".join(rest.text for rest in unmasking.rest()) == restored(text)


@many
@given(st.data(), texts)
def test_what_is_held_is_shorter_than_a_placeholder_and_could_become_one(data: st.DataObject, text: str) -> None:
    unmasking, given_text = Unmasking({name: name for name in ORIGINALS}), ""
    shown = ""
    for piece in data.draw(cut(text)):
        given_text += piece
        shown += unmasking.restored(chat_pb2.Delta(text=piece)).text
        held = given_text[len(shown) :]
        assert len(held) < LONGEST
        assert held == "" or any(name.startswith(held) for name in ORIGINALS)


@many
@given(st.data(), texts)
def test_json_stays_json(data: st.DataObject, text: str) -> None:
    document = json.dumps({"said": text}, ensure_ascii=False)
    unmasking = Unmasking(ORIGINALS, json_text=True)
    shown = "".join(unmasking.restored(chat_pb2.Delta(text=piece)).text for piece in data.draw(cut(document)))
    assert json.loads(shown + "".join(rest.text for rest in unmasking.rest())) == {"said": restored(text)}


def arguments(text: str) -> list[chat_pb2.ToolCallDelta]:
    return [chat_pb2.ToolCallDelta(index=0, name="f", arguments=text)]


def test_text_reasoning_and_each_tool_call_are_streams_of_their_own() -> None:
    unmasking = Unmasking(ORIGINALS)
    first = chat_pb2.Delta(text="a [EMAIL", reasoning="[CARD_", tool_calls=arguments('{"to":"[EM'))
    second = chat_pb2.Delta(text="_1] b", reasoning="1]", tool_calls=arguments('AIL_12]"}'))
    one, two = unmasking.restored(first), unmasking.restored(second)
    assert one.text + two.text == "a ivan@example.ru b"
    assert one.reasoning + two.reasoning == "4111 1111 1111 1111"
    called = one.tool_calls[0].arguments + two.tool_calls[0].arguments
    assert json.loads(called) == {"to": 'say "hi"\n'}
    assert one.tool_calls[0].name == "f"
    assert unmasking.rest() == []


async def test_what_is_held_comes_before_the_end_and_before_a_failure() -> None:
    async def pieces(*, fails: bool) -> AsyncIterator[chat_pb2.Delta | router_pb2.Finished]:
        yield chat_pb2.Delta(text="open [EMAIL")
        if fails:
            raise ConnectionError
        yield router_pb2.Finished(finish_reason=chat_pb2.FINISH_REASON_STOP)

    whole = [piece async for piece in Unmasking(ORIGINALS).through(pieces(fails=False))]
    assert [getattr(piece, "text", None) for piece in whole] == ["open ", "[EMAIL", None]
    broken = Unmasking(ORIGINALS).through(pieces(fails=True))
    assert [(await anext(broken)).text for _ in range(2)] == ["open ", "[EMAIL"]
    with pytest.raises(ConnectionError):
        await anext(broken)


async def test_who_is_given_the_words_back_and_leaves_has_closed_the_answer() -> None:
    closed = False

    async def pieces() -> AsyncGenerator[chat_pb2.Delta, None]:
        nonlocal closed
        try:
            yield chat_pb2.Delta(text="one")
            yield chat_pb2.Delta(text="two")
        finally:
            closed = True

    unmasked = Unmasking(ORIGINALS).through(pieces())
    await anext(unmasked)
    await unmasked.aclose()
    assert closed
