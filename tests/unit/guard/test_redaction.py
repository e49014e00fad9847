"""What rules mask in answers: never shown, replaced the same way however the answer is cut, and JSON stays JSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from services.guard.escapes import Escapes, without_halves
from services.guard.folding import fold, origins
from services.guard.masking import kind
from services.guard.matching import ExpressionInvalid, compile_database
from services.guard.patterns import LoadedRule
from services.guard.rules import Rule
from services.guard.stream import UNMASKABLE, AnswerRules, AnswerWatch, Release
from services.guard.verdict import Action
from tests.support.random_rules import RandomRule, random_rules

TEXTS_OF_ONE_EXAMPLE = 20
many = settings(max_examples=110, deadline=None, suppress_health_check=list(HealthCheck))
LOOSE = "abcABC12- _.\n\u0430\u0412\u0436\u200b\u0301\uff11\u6f22\u00e9\U0001f600"
ESCAPES = ("\\n", "\\t", "\\")


def masking(pattern: str, rule_id: str = "tenant.name", longest: int = 30) -> LoadedRule:
    words = {
        "id": rule_id,
        "category": "confidential",
        "languages": ("any",),
        "direction": "both",
        "severity": "medium",
        "action": "mask",
        "patterns": (pattern,),
        "max_length": longest,
        "must_match": ("-",),
        "must_not_match": ("-",),
    }
    return LoadedRule(Rule.model_validate(words), {})


def shown(sets: Sequence[AnswerRules], pieces: Sequence[str], *, as_json: bool = False) -> tuple[str, Release]:
    """All that left, and the last release."""
    watch, text, release = AnswerWatch(sets, 0, json=as_json), "", Release("")
    try:
        for number, piece in enumerate(pieces, 1):
            release = watch.feed(piece, last=number == len(pieces))
            text += release.text
            if release.verdict:
                break
    finally:
        watch.close()
    return text, release


def matches(rule: RandomRule, folded: bytes, *, reads_escapes: bool) -> list[tuple[int, int]]:
    """Where a rule matches a text as it stands, and with escapes read."""
    found = rule.matches(folded)
    if reads_escapes:
        read = Escapes().read(folded, last=True)
        found += [without_halves(folded, *match) for match in rule.matches(read)]
    return [(start, end) for start, end in found if start < end]


def expected(rules: Sequence[RandomRule], text: str, *, reads_escapes: bool = False) -> str:
    """The text with every run of matched characters replaced, by way of a search that uses no engine of expressions."""
    folded, places = fold(text), origins(text)
    spans = sorted(
        (places[start], -(places[end - 1] + 1), rule.loaded.rule.id)
        for rule in rules
        if rule.loaded.rule.action is Action.MASK
        for start, end in matches(rule, folded, reads_escapes=reads_escapes)
    )
    result, done = "", -1
    for start, minus_end, rule_id in spans:
        if start > done:
            result += text[max(done, 0) : start] + f"[{kind(rule_id)}]"
        done = max(done, -minus_end)
    return result + text[max(done, 0) :]


def forbidden_from(rules: Sequence[RandomRule], text: str) -> int | None:
    folded = fold(text)
    stopping = (rule for rule in rules if rule.loaded.rule.action is Action.BLOCK)
    starts = [start for rule in stopping for start, _ in rule.matches(folded)]
    return origins(text)[min(starts)] if starts else None


def texts(rules: Sequence[RandomRule], chance: Random) -> str:
    parts = []
    for _ in range(chance.randint(0, 6)):
        sample = chance.choice(rules).piece.sample(chance)
        loose = "".join(chance.choices([*LOOSE, *ESCAPES], k=chance.randint(0, 8)))
        parts.append(chance.choice([sample, sample, loose, sample[: chance.randint(0, len(sample))]]))
    return "".join(parts)


def cut(text: str, chance: Random) -> list[str]:
    if chance.random() < 0.5:
        return list(text) or [""]
    edges = [0, *sorted(chance.randint(0, len(text)) for _ in range(6)), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


def ready(rules: Sequence[RandomRule], *, reads_escapes: bool = False) -> list[AnswerRules]:
    """Each rule a set of its own, as packs' and a tenant's are."""
    try:
        return [AnswerRules([rule.loaded], compile_database, reads_escapes=reads_escapes) for rule in rules]
    except ExpressionInvalid:
        reject()


@pytest.mark.parametrize("reads_escapes", [False, True])
@many
@given(random_rules(("mask", "allow")), st.integers(0, 2**32))
def test_what_is_masked_is_replaced_however_the_answer_is_cut(
    reads_escapes: bool, rules: list[RandomRule], seed: int
) -> None:
    sets, chance = ready(rules, reads_escapes=reads_escapes), Random(seed)
    for _ in range(TEXTS_OF_ONE_EXAMPLE):
        text = texts(rules, chance)
        assert shown(sets, cut(text, chance))[0] == expected(rules, text, reads_escapes=reads_escapes)


@many
@given(random_rules(("mask", "block", "allow")), st.integers(0, 2**32))
def test_a_masked_answer_that_is_stopped_shows_nothing_of_either(rules: list[RandomRule], seed: int) -> None:
    sets, chance = ready(rules), Random(seed)
    for _ in range(TEXTS_OF_ONE_EXAMPLE):
        text = texts(rules, chance)
        left, release = shown(sets, cut(text, chance))
        assert release.verdict is not None
        stop = forbidden_from(rules, text)
        assert (release.verdict.action is Action.BLOCK) is (stop is not None)
        if stop is not None:
            assert len(left) <= len(expected(rules, text))
            assert any(expected(rules, text[:end]).startswith(left) or left == "" for end in range(stop, len(text) + 1))


TREES = st.recursive(
    st.one_of(st.integers(0, 10**6), st.sampled_from(["falcon", 'say "falcon"', "a\\falcon\\", "\u0007falcon", "x"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=1000, deadline=None)
@given(TREES, st.booleans(), st.integers(0, 2**32))
def test_json_stays_json_of_the_same_shape_or_ends(tree: object, ascii_only: bool, seed: int) -> None:
    text = json.dumps(tree, ensure_ascii=ascii_only)
    left, release = shown(JSON_SETS, cut(text, Random(seed)), as_json=True)
    assert release.verdict is not None
    if release.verdict.action is Action.BLOCK:
        assert UNMASKABLE in {found.rule for found in release.verdict.findings}
    else:
        assert shape(json.loads(left)) == shape(tree)
    assert "falcon" not in left


JSON_SETS = [AnswerRules([masking("falcon"), masking("u00|7f|12", "tenant.piece")], compile_database)]


def shape(tree: object) -> object:
    if isinstance(tree, list):
        return [shape(each) for each in tree]
    if isinstance(tree, dict):
        return {key: shape(each) for key, each in tree.items()}
    return type(tree)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("About Falcon and FALCON.", "About [NAME] and [NAME]."),
        ("FalconFalcon", "[NAME]"),
        ("Fаl\u200bcon flies", "[NAME] flies"),
        ("a falco", "a falco"),
    ],
)
def test_names_are_masked_in_a_stream_of_characters(text: str, left: str) -> None:
    sets = [AnswerRules([masking("falcon")], compile_database)]
    answer, release = shown(sets, list(text))
    assert answer == left
    assert release.verdict is not None
    assert release.verdict.action is (Action.MASK if "[" in left else Action.ALLOW)


def test_an_expression_that_is_slow_to_watch_for_holds_more_and_leaks_nothing() -> None:
    sets = [AnswerRules([masking("(?:a{1,5}){1,12}b", longest=61)], compile_database)]
    text = "x" * 300 + "a" * 60 + "c" + "aaab" + "y" * 300
    answer, release = shown(sets, [text[at : at + 7] for at in range(0, len(text), 7)])
    assert answer == "x" * 300 + "a" * 60 + "c[NAME]" + "y" * 300
    assert release.verdict is not None


@pytest.mark.parametrize(
    ("pattern", "text", "left"),
    [
        (r"\bfalcon\b", r'{"a": "who:\nfalcon\tflies"}', r'{"a": "who:\n[NAME]\tflies"}'),
        (r"falcon\s{1,4}nine", r'{"a": "the falcon\n\tnine"}', r'{"a": "the [NAME]"}'),
        (r"\sfalcon\s", r'{"a": "the\nfalcon\n"}', r'{"a": "the\n[NAME]\n"}'),
        (r"\bfalcon\b", r'{"a": "C:\\nfalcon"}', r'{"a": "C:\\n[NAME]"}'),
        (r"C:\\\\new", r'{"a": "in C:\\new"}', r'{"a": "in [NAME]"}'),
        (r"\bfalcon\b", r'{"a": "no\nname \u00e9"}', r'{"a": "no\nname \u00e9"}'),
    ],
    ids=["behind a line", "on two lines", "between lines", "of a path", "as it stands", "nothing"],
)
def test_line_breaks_and_tabs_of_json_are_white_space_at_every_cut(pattern: str, text: str, left: str) -> None:
    sets = [AnswerRules([masking(pattern)], compile_database, reads_escapes=True)]
    cuts = [[text[:place], text[place:]] for place in range(len(text))]
    assert {shown(sets, pieces, as_json=True)[0] for pieces in [*cuts, list(text)]} == {left}
