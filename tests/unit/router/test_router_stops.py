"""Texts that end an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from llmmesh.chat.v1 import chat_pb2
from services.router.providers.provider import AnswerEvent, Ended, apart
from services.router.providers.stops import until_stop

END = Ended(chat_pb2.FINISH_REASON_LENGTH, chat_pb2.TokenUsage(input_tokens=1))


async def spoken(pieces: list[str], last: str | None) -> AsyncIterator[AnswerEvent]:
    for piece in pieces:
        yield chat_pb2.Delta(text=piece)
    yield END if last is None else replace(END, last=chat_pb2.Delta(text=last))


async def cut(pieces: list[str], stops: list[str], last: str | None = None) -> tuple[str, Ended]:
    events = [each async for event in until_stop(spoken(pieces, last), stops) for each in apart(event)]
    assert [isinstance(event, Ended) for event in events].index(True) == len(events) - 1
    return "".join(event.text for event in events[:-1]), events[-1]


async def test_the_answer_ends_before_the_first_stop():
    text, ended = await cut(["one two", " three"], ["three", "two"])
    assert (text, ended) == ("one ", Ended(chat_pb2.FINISH_REASON_STOP, None))


async def test_a_stop_may_lie_across_pieces():
    assert (await cut(["a", "E", "N", "D", "b"], ["END"]))[0] == "a"


async def test_what_only_began_like_a_stop_is_handed_on():
    assert await cut(["a", "E", "N", "d"], ["END"]) == ("aENd", END)
    assert await cut(["aEN"], ["END"]) == ("aEN", END)


async def test_what_comes_with_the_end_is_cut_like_the_rest():
    assert (await cut(["a", "E"], ["END"], last="NDb"))[0] == "a"
    assert await cut(["a"], ["END"], last="bE") == ("abE", END)


async def test_without_stops_nothing_is_changed():
    assert await cut(["a", "b"], []) == ("ab", END)


@settings(deadline=None)
@given(
    pieces=st.lists(st.text(alphabet="ab", max_size=4), max_size=8),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=3),
)
async def test_however_it_is_cut_the_answer_is_what_stands_before_the_first_stop(pieces, stops):
    whole = "".join(pieces)
    text, _ = await cut(pieces, stops)
    assert not any(stop in text for stop in stops)
    assert whole.startswith(text)
    if not any(stop in whole for stop in stops):
        assert text == whole
