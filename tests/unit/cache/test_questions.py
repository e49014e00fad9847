"""What the semantic level is calibrated with, and judged by, was not learned from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations

from tests.eval.cache.questions import PARTS, Pair, load


def wordings(pairs: Iterable[Pair]) -> set[str]:
    """Questions in lower case, without stops."""
    return {re.sub(r"\W+", " ", text.lower()).strip() for pair in pairs if pair.same for text in (pair.a, pair.b)}


def test_no_question_stands_in_two_parts() -> None:
    parts = {part: wordings(load(part)) for part in PARTS}
    assert not [(one, other, both) for one, other in combinations(PARTS, 2) if (both := parts[one] & parts[other])]
