"""The promise of the stream for any rules: no byte of a match leaves, and nothing else is touched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from services.guard.folding import fold, origins
from services.guard.matching import Expression, ExpressionInvalid, compile_database
from services.guard.openings import Openings
from services.guard.stream import MOST_HELD, AnswerRules, Release
from services.guard.verdict import Action
from tests.support.random_rules import RandomRule, random_rules

TEXTS_OF_ONE_EXAMPLE = 20
"""Compiling the rules costs most: each set of them is tried on many texts, 2,500 cases in all."""

many = settings(max_examples=125, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)
LOOSE = "abcABC12- _.\n\v\u0430\u0412\u0436\u200b\u0301\uff11\u6f22\u00e9\U0001f600"
"""What the rules speak of, look-alikes, invisible characters, and letters that fold to several bytes."""


@dataclass(frozen=True)
class Step:
    """One piece of an answer, and what left the guard because of it."""

    given: str
    """All text given so far."""
    shown: str
    """All text that left so far."""
    release: Release


@dataclass(frozen=True)
class Case:
    """An answer to be watched under some rules."""

    rules: list[RandomRule]
    ready: AnswerRules
    text: str
    pieces: list[str]

    def forbidden_from(self) -> int | None:
        """The first character of any match that must not leave; None when all may."""
        folded = fold(self.text)
        stopping = (rule for rule in self.rules if rule.loaded.rule.action is Action.BLOCK)
        starts = [start for rule in stopping for start, _ in rule.matches(folded)]
        return origins(self.text)[min(starts)] if starts else None

    def watched(self) -> Iterator[Step]:
        """Every step until a verdict."""
        watch = self.ready.watch()
        given_text = shown = ""
        try:
            for number, piece in enumerate(self.pieces, 1):
                release = watch.feed(piece, last=number == len(self.pieces))
                given_text, shown = given_text + piece, shown + release.text
                yield Step(given_text, shown, release)
                if release.verdict is not None:
                    return
        finally:
            watch.close()


def cases(rules: list[RandomRule], seed: int) -> Iterator[Case]:
    """Answers under the same rules: matches, beginnings of matches and anything else, cut anywhere."""
    ready, chance = _ready(rules), Random(seed)
    for _ in range(TEXTS_OF_ONE_EXAMPLE):
        text = "".join(_part(rules, chance) for _ in range(chance.randint(0, 5)))
        yield Case(rules, ready, text, _cut(text, chance))


def _ready(rules: list[RandomRule]) -> AnswerRules:
    try:
        return AnswerRules([rule.loaded for rule in rules], compile_database)
    except ExpressionInvalid:  # such as one that can never match
        reject()


def _part(rules: list[RandomRule], chance: Random) -> str:
    sample = chance.choice(rules).piece.sample(chance)
    if chance.random() < 0.3:
        return "".join(chance.choices(LOOSE, k=chance.randint(0, 12)))
    return sample if chance.random() < 0.6 else sample[: chance.randint(0, len(sample))]


def _cut(text: str, chance: Random) -> list[str]:
    if chance.random() < 0.5:
        return list(text) or [""]
    edges = [0, *sorted(chance.randint(0, len(text)) for _ in range(6)), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


@many
@given(random_rules(), seeds)
def test_no_byte_of_a_match_of_any_rule_ever_leaves(rules: list[RandomRule], seed: int) -> None:
    for case in cases(rules, seed):
        forbidden = case.forbidden_from()
        *_, last = case.watched()
        assert last.release.verdict is not None
        assert last.release.verdict.action is (Action.ALLOW if forbidden is None else Action.BLOCK)
        assert forbidden is None or len(last.shown) <= forbidden


@many
@given(random_rules(), seeds)
def test_under_any_rules_text_is_never_reordered_lost_or_doubled(rules: list[RandomRule], seed: int) -> None:
    for case in cases(rules, seed):
        steps = list(case.watched())
        assert all(step.given.startswith(step.shown) for step in steps)
        if case.forbidden_from() is None:
            assert steps[-1].shown == case.text


@many
@given(random_rules(), seeds)
def test_under_any_rules_no_more_is_held_than_the_longest_match(rules: list[RandomRule], seed: int) -> None:
    for case in cases(rules, seed):
        for step in case.watched():
            if step.release.verdict is None:
                held = step.given[len(step.shown) :]
                assert sum(map(bool, map(fold, held))) <= case.ready.longest
                assert len(held) <= MOST_HELD


@pytest.mark.parametrize(
    "source",
    [
        r"^abc",
        "abc$",
        r"\Aabc",
        r"\h",
        r"\R",
        r"\v",
        r"\Qa.c\E",
        "a{,3}b",
        "[[:alpha:]]x",
        r"[a\b]c",
        "(?i:a)b",
        "(?s)a",
    ],
)
def test_an_expression_that_hyperscan_and_regex_read_differently_is_refused(source: str) -> None:
    with pytest.raises(ExpressionInvalid, match="cannot be watched"):
        Openings([Expression(source.encode())])


@pytest.mark.parametrize("source", [r"\bsk-[\w-]{3,9}\b", r"a\x2eb", r"(?:a|\.)\Bb", r"[^\s\d]{2}", r"\\b[]a]"])
def test_an_expression_that_both_read_alike_is_taken(source: str) -> None:
    assert Openings([Expression(source.encode())]).start(b" ", 0) <= 1


def test_what_takes_too_long_to_look_for_is_held_back_whole() -> None:
    openings = Openings([Expression(b"(?:a|a)+b")])
    endless = b"a" * 4000 + b"c"
    assert [openings.start(endless, 7), openings.start(b"nothing", 3)] == [7, 3]
