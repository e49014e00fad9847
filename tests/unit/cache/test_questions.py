"""What the semantic level is judged by was not learned from."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests.eval.cache.questions import Pair, load


def wordings(pairs: Iterable[Pair]) -> set[str]:
    """Questions in lower case, without stops."""
    return {re.sub(r"\W+", " ", text.lower()).strip() for pair in pairs if pair.same for text in (pair.a, pair.b)}


def test_no_held_out_question_stands_in_another_part() -> None:
    assert wordings(load("heldout")).isdisjoint(wordings(load("train", "weighing", "calibration")))
