"""Server-sent events, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.providers import sse
from services.router.providers.sse import EventParser, EventTooLarge


def parsed(*pieces: bytes) -> list[bytes]:
    parser = EventParser()
    return [data for piece in pieces for data in parser.feed(piece)] + parser.close()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_ending_counts(end):
    assert parsed(b"data: a" + end + end + b"data:b" + end + end) == [b"a", b"b"]


def test_comments_names_and_ids_are_dropped():
    assert parsed(b": keep-alive\n\nevent: message\nid: 7\nretry: 10\ndata: a\n\n: bye\n\n") == [b"a"]


def test_lines_of_one_event_are_joined():
    assert parsed(b"data: {\ndata: }\n\n") == [b"{\n}"]


def test_a_byte_order_mark_is_skipped():
    assert parsed(b"\xef\xbb\xbfdata: a\n\n") == [b"a"]


def test_the_last_event_needs_no_blank_line():
    assert parsed(b"data: a\n\ndata: [DONE]") == [b"a", b"[DONE]"]


@settings(deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    size=st.integers(1, 7),
)
def test_events_may_be_cut_anywhere_even_inside_a_character(texts, end, size):
    stream = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert parsed(*pieces) == [text.encode() for text in texts]


def test_an_event_without_end_is_refused():
    parser = EventParser()
    piece = b"data: " + b"x" * (sse.LARGEST_EVENT_BYTES // 2)
    parser.feed(piece)
    with pytest.raises(EventTooLarge):
        parser.feed(b"x" * sse.LARGEST_EVENT_BYTES)
