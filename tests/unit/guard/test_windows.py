"""Which part of an answer is judged next, and what is shown by then."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.guard.windows import BEFORE, STEP, Window, Windows

steps = st.lists(
    st.one_of(st.integers(0, 900).map(lambda length: ("say", length)), st.sampled_from([("ask", 0), ("pass", 0)])),
    max_size=40,
)


def told(script: list[tuple[str, int]], *, hold: bool) -> tuple[str, str, list[Window]]:
    """What was said and shown, and the windows that were judged, all of the answer in the end."""
    windows, said, shown, judged = Windows(hold=hold), "", "", list[Window]()
    out = False
    for kind, length in [*script, ("pass", 0), ("end", 0), ("pass", 0)]:
        if kind == "say":
            text = "".join(chr(0x4E00 + (len(said) + index) % 20_000) for index in range(length))
            said, shown = said + text, shown + windows.take(text)
        elif kind != "pass" and not out and (window := windows.next(last=kind == "end")):
            judged.append(window)
            out = True
        elif kind == "pass" and out:
            shown, out = shown + windows.passed(), False
        if hold:
            assert len(shown) == len(said) - windows.ahead
        else:
            assert shown == said
    return said, shown, judged


@given(steps, st.booleans())
def test_every_character_is_judged_and_shown_once_in_order(script: list[tuple[str, int]], hold: bool) -> None:
    said, shown, judged = told(script, hold=hold)
    assert shown == said
    reached = 0
    for window in judged:
        assert said[window.start : window.start + len(window.text)] == window.text
        assert window.start == max(reached - BEFORE, 0)
        reached = window.start + len(window.text)
    assert reached == len(said)


@given(steps)
def test_no_window_but_the_last_is_shorter_than_a_step(script: list[tuple[str, int]]) -> None:
    _, _, judged = told(script, hold=True)
    ends = [0, *(window.start + len(window.text) for window in judged)]
    assert all(end - before >= STEP for before, end in pairwise(ends[:-1]))


def test_what_was_held_is_shown_when_no_judgement_comes() -> None:
    windows = Windows(hold=True)
    assert windows.take("a" * STEP) == ""
    assert windows.next(last=False) == Window("a" * STEP, 0)
    assert windows.take("b") == ""
    assert windows.unjudged() == "a" * STEP + "b"
