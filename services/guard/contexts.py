"""What stands around a finding, fit for logs: short, on one line, everything sensitive hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from services.guard.masking import to_their_ends
from services.guard.passages import Passage
from services.guard.rules import Category
from services.guard.verdict import MOST_OF_A_RULE, Action, DataClass, Finding

LONGEST = 100
AROUND = 30
"""Characters shown before and after a finding, at most."""
MOST = 20
"""Findings of a verdict that are shown with what stands around them."""
_HIDDEN = frozenset({Category.PERSONAL_DATA, Category.SECRET})


def masked_contexts(passages: Sequence[Passage], findings: Sequence[Finding]) -> Iterator[str]:
    """A context for each of the findings on these passages."""
    texts = {passage.message_index: passage.text for passage in passages}
    counts = Counter(found.rule for found in findings if _is_hidden(found))
    hidden = [
        whole
        for index, text in texts.items()
        for whole in to_their_ends(text, (found for found in findings if found.message_index == index))
    ]
    # Findings beyond these are not named: there may be more to hide than is known here.
    all_known = max(counts.values(), default=0) < MOST_OF_A_RULE
    for number, found in enumerate(findings):
        if number < MOST and all_known:
            yield _context(texts[found.message_index], found, hidden)
        else:
            yield placeholder(found)


def placeholder(found: Finding) -> str:
    """What stands in the place of something hidden."""
    return f"[{found.category}]"


def _is_hidden(found: Finding) -> bool:
    hidden = found.category in _HIDDEN or found.data_class is DataClass.SENSITIVE
    return hidden or found.action is Action.MASK


def _context(text: str, found: Finding, findings: Sequence[Finding]) -> str:
    place, end = max(found.start - AROUND, 0), found.end + AROUND
    pieces: list[str] = []
    for hidden in _hidden_between(place, end, found.message_index, findings):
        pieces += (text[place : hidden.start], placeholder(hidden))
        place = max(place, hidden.end)
    pieces.append(text[place:end])
    shown = "".join(character if character.isprintable() else " " for character in "".join(pieces))
    return " ".join(shown.split())[:LONGEST]


def _hidden_between(start: int, end: int, message_index: int, findings: Sequence[Finding]) -> list[Finding]:
    """What is to be hidden and touches the place, in order."""
    return sorted(
        (
            found
            for found in findings
            if _is_hidden(found) and found.message_index == message_index and found.start < end and found.end > start
        ),
        key=lambda found: found.start,
    )
