"""An answer that says the same thing again and again is ended; one that merely resembles itself is not."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from services.guard.policy import Policy
from services.guard.repetition import STEP, Repetition
from services.guard.stream import REPETITION, Release
from services.guard.verdict import Action

MOST = 400
CARD = "4111 1111 1111 1111"


def ended_at(text: str, most: int = MOST, step: int = 7) -> int | None:
    """After how many characters the text is ended; None when never."""
    repetition = Repetition(most)
    ends = range(step, len(text) + step, step)
    return next((end for end in ends if repetition.runs_away(text[end - step : end])), None)


@settings(deadline=None, max_examples=300)
@given(st.text(min_size=1, max_size=MOST // 4), st.integers(0, 2**32), st.integers(1, 40))
def test_whatever_is_repeated_ends_soon_after_the_bound(unit: str, seed: int, step: int) -> None:
    chance = Random(seed)
    before = "".join(chance.choices("abcdefgh ,.", k=chance.randint(0, 600)))
    text = before + unit * (3 * MOST // len(unit))
    end = ended_at(text, step=step)
    assert end is not None
    assert end <= len(before) + MOST + len(unit) + STEP + step


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**32))
def test_text_that_goes_on_is_never_ended(seed: int) -> None:
    chance = Random(seed)
    words = ["yes", "no", "again", "и", "снова", "| --- |", "0,", "\n", "    "]
    # Every line says where it stands: however alike two are, none is the other.
    lines = (f"{number}. {' '.join(chance.choices(words, k=8))}\n" for number in range(200))
    assert ended_at("".join(lines)) is None


def test_a_few_repeats_are_no_runaway() -> None:
    assert ended_at("This paragraph stands here four times over. " * 4 + "And then it is over. ", most=MOST) is None


def test_a_bound_of_zero_ends_nothing() -> None:
    assert ended_at("a" * 100_000, most=0) is None


def watched(policy: Policy, text: str) -> list[Release]:
    watch = policy.answers.watch(MOST)
    releases = []
    try:
        for piece in (text[start : start + 9] for start in range(0, len(text), 9)):
            releases.append(watch.feed(piece))
            if releases[-1].verdict:
                break
    finally:
        watch.close()
    return releases


def test_what_was_said_until_then_is_shown_and_the_verdict_says_why(policy: Policy) -> None:
    text = "Let me think. " + "The answer is 42. " * 200
    *_, last = releases = watched(policy, text)
    shown = "".join(release.text for release in releases)
    assert last.verdict is not None
    assert (last.runaway, last.verdict.action) == (True, Action.ALLOW)
    assert [found.rule for found in last.verdict.findings] == [REPETITION]
    assert text.startswith(shown)
    assert MOST < len(shown) < 1200


def test_what_may_not_be_said_is_not_said_at_such_an_end_either(policy: Policy) -> None:
    watch = policy.answers.watch(MOST)
    release = watch.feed(f"Take {CARD}. " + "Thanks! " * 100)
    watch.close()
    assert release.verdict is not None
    assert (release.runaway, release.verdict.action, release.text) == (False, Action.BLOCK, "Take ")
