"""The promise of the stream: no blocking match leaks, nothing is lost, re-ordered or doubled, however text is cut."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.guard.checksums import CHECKS, luhn
from services.guard.folding import fold
from services.guard.policy import Policy
from services.guard.stream import MOST_HELD, AnswerRules, Release
from services.guard.verdict import Action, DataClass, Direction, RiskLevel

many = settings(max_examples=520, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CARDS = ("4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "2200700712345676")
KEYS = (
    "sk-proj-9fK2mZ0qLx7Tb3VwYc5N1aRd",
    "AKIA3QW5ZRT7YUIOP2KJ",
    "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq3Kx9vJd2LmQ",
    "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1",
)
NEAR_MISSES = (
    "4111 1111 1111 1112",
    "sk-learn",
    "AKIA",
    "-----BEGIN PUBLIC KEY-----",
    "1234 5678 9012 3456 789",
    "ghp_",
    "--",
)
LONGEST = 128
HIDING = ("\u200b", "\u2060", "\u00ad", "\u0301", "\U000e0001")
DOUBLES = str.maketrans(
    {"A": "А", "K": "К", "s": "ѕ", "p": "р", "B": "В", "E": "Е", "I": "І", "0": "０", "4": "４", "-": "–"}
)

prose = st.text(st.sampled_from("abcsxAgphk \n.-:_+0123456789абвгде\u200b—№é漢😀"), max_size=60)
planted = st.sampled_from(CARDS + KEYS)
noise = st.sampled_from(NEAR_MISSES)


@st.composite
def disguised(draw: st.DrawFn) -> str:
    """A secret written with look-alikes and invisible characters."""
    secret = draw(planted)
    if draw(st.booleans()):
        secret = secret.translate(DOUBLES)
    hidden = draw(st.lists(st.sampled_from(("", *HIDING)), min_size=len(secret), max_size=len(secret)))
    return "".join(character + mark for character, mark in zip(secret, hidden, strict=True))


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    """The text in pieces of any size, empty ones and single characters among them."""
    if draw(st.booleans()):
        return list(text) or [""]
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    edges = [0, *places, len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


def watched(rules: AnswerRules, pieces: Sequence[str]) -> list[Release]:
    """Everything the watch says about an answer, the last piece marked as such."""
    watch = rules.watch()
    releases = []
    try:
        for number, piece in enumerate(pieces, 1):
            releases.append(watch.feed(piece, last=number == len(pieces)))
            if releases[-1].verdict is not None:
                break
    finally:
        watch.close()
    return releases


def shown(releases: Sequence[Release]) -> str:
    return "".join(release.text for release in releases)


def blocking_matches(policy: Policy, text: str) -> list[tuple[int, int]]:
    """What must not leave: every place and length of every rule, tried on the whole folded text with `re` alone."""
    folded = fold(text)
    found = []
    for loaded in policy.answers.rules:
        if loaded.rule.action is not Action.BLOCK:
            continue
        for expression in loaded.expressions:
            pattern = re.compile(expression.source, 0 if expression.case_sensitive else re.IGNORECASE)
            check = CHECKS[str(loaded.rule.check)]
            for start in (start for start in range(len(folded)) if pattern.match(folded, start)):
                for end in range(start + 1, min(len(folded), start + LONGEST) + 1):
                    if pattern.fullmatch(folded, start, end) and _edge(folded, end, expression.source):
                        part = check(folded[start:end])
                        found += [(start + part[0], start + part[1])] if part else []
    return found


def _edge(folded: bytes, end: int, source: bytes) -> bool:
    """`fullmatch` takes its own end for the edge of a word; the text may go on."""
    return not source.endswith(rb"\b") or not re.match(rb"\w", folded[end : end + 1])


@many
@given(st.data(), st.lists(st.one_of(prose, noise), max_size=6).map("".join))
def test_text_without_secrets_arrives_whole_and_in_order(policy: Policy, data: st.DataObject, text: str) -> None:
    if blocking_matches(policy, text):
        return
    releases = watched(policy.answers, data.draw(cut(text)))
    assert shown(releases) == text
    assert releases[-1].verdict is not None
    assert releases[-1].verdict.action is Action.ALLOW


@many
@given(st.data(), prose, st.one_of(disguised(), planted), prose)
def test_no_character_of_a_secret_ever_leaves(
    policy: Policy, data: st.DataObject, before: str, secret: str, after: str
) -> None:
    text = f"{before} {secret} {after}"
    matches = blocking_matches(policy, text)
    releases = watched(policy.answers, data.draw(cut(text)))
    out = shown(releases)
    verdict = releases[-1].verdict
    assert verdict is not None
    assert matches
    assert verdict.action is Action.BLOCK
    assert verdict.risk_level is RiskLevel.CRITICAL
    assert text.startswith(out)
    assert len(fold(out)) <= min(start for start, _ in matches)


@many
@given(st.data(), st.lists(st.one_of(prose, noise, planted, disguised()), max_size=5).map("".join))
def test_how_text_is_cut_does_not_change_the_verdict(policy: Policy, data: st.DataObject, text: str) -> None:
    whole = watched(policy.answers, [text])[-1].verdict
    pieces = watched(policy.answers, data.draw(cut(text)))[-1].verdict
    assert whole is not None
    assert pieces is not None
    assert (whole.action, bool(blocking_matches(policy, text))) == (pieces.action, whole.action is Action.BLOCK)
    if whole.action is Action.ALLOW:
        assert whole.findings == pieces.findings


@many
@given(st.data(), st.lists(st.one_of(prose, noise, disguised()), max_size=4).map("".join))
def test_what_is_held_back_is_bounded(policy: Policy, data: st.DataObject, text: str) -> None:
    watch = policy.answers.watch()
    given_text = out = ""
    try:
        for piece in data.draw(cut(text)):
            release = watch.feed(piece)
            given_text, out = given_text + piece, out + release.text
            assert given_text.startswith(out)
            if release.verdict is not None:
                return
            held = given_text[len(out) :]
            assert len(fold(held)) <= policy.answers.longest
            assert len(held) <= MOST_HELD
    finally:
        watch.close()


def test_ordinary_prose_is_hardly_delayed(policy: Policy) -> None:
    text = (
        "The Moscow Metro opened in 1935 and carries about 6.9 million people a day. Московское метро открылось в "
        "1935 году; сейчас в нём 14 линий и 263 станции. Risk-adjusted returns, -- dashes -- and a list:\n- sky\n- AK\n"
    )
    watch = policy.answers.watch()
    given_count = out_count = 0
    held = []
    for word in re.findall(r"\s*\S+", text):
        given_count += len(word)
        out_count += len(watch.feed(word).text)
        held.append(given_count - out_count)
    watch.close()
    assert max(held) <= 12
    assert sum(held) / len(held) < 2


def test_digits_are_held_only_while_a_card_is_possible(policy: Policy) -> None:
    watch = policy.answers.watch()
    assert watch.feed("Total: 4111 1111 1111").text == "Total: "
    assert watch.feed(" units").text == "4111 1111 1111 units"
    watch.close()


def test_a_number_that_fails_luhn_is_released_when_it_ends(policy: Policy) -> None:
    watch = policy.answers.watch()
    assert watch.feed("4111 1111 1111 1112").text == ""
    assert watch.feed(", order").text == "4111 1111 1111 1112, order"
    watch.close()


def test_an_unfinished_match_at_the_end_is_released(policy: Policy) -> None:
    assert shown(watched(policy.answers, ["The prefix is ", "sk-"])) == "The prefix is sk-"


def test_a_card_at_the_very_end_is_stopped(policy: Policy) -> None:
    releases = watched(policy.answers, ["Card: 4111 1111", " 1111 1111"])
    assert shown(releases) == "Card: "
    verdict = releases[-1].verdict
    assert verdict is not None
    assert [(found.rule, found.start, found.end) for found in verdict.findings] == [
        ("personal_data.card.leaked", 6, 25)
    ]


@pytest.mark.parametrize("secret", [CARDS[0], KEYS[0], KEYS[1]])
def test_a_secret_behind_a_line_break_of_json_is_stopped_at_every_cut(policy: Policy, secret: str) -> None:
    text = f'{{"csv": "name,value\\n{secret}\\nend"}}'
    for place in range(len(text)):
        releases = watched(policy.answers, [text[:place], text[place:]])
        start = text.index(secret)
        assert shown(releases) in (text[:start], text[: start - len("\\n")])  # the escape may be held back with it
        assert releases[-1].verdict is not None
        assert releases[-1].verdict.action is Action.BLOCK


def test_a_high_finding_is_reported_and_does_not_stop(policy: Policy) -> None:
    releases = watched(policy.answers, ["Ваш СНИЛС 112-233", "-445 95, верно?"])
    verdict = releases[-1].verdict
    assert verdict is not None
    assert (verdict.action, verdict.risk_level) == (Action.ALLOW, RiskLevel.HIGH)
    assert [found.rule for found in verdict.findings] == ["personal_data.snils"]
    assert shown(releases) == "Ваш СНИЛС 112-233-445 95, верно?"


def test_a_match_drowned_in_invisible_characters_stops_the_answer(policy: Policy) -> None:
    watch = policy.answers.watch()
    release = watch.feed("key sk-" + "\u200b" * (MOST_HELD + 1))
    watch.close()
    assert release.text == "key "
    assert release.verdict is not None
    assert [found.rule for found in release.verdict.findings] == ["secret.concealed"]


def test_invisible_characters_outside_a_match_pass(policy: Policy) -> None:
    text = "a" + "\u200b" * 5000 + "b"
    assert shown(watched(policy.answers, [text[:3000], text[3000:]])) == text


def test_memory_of_an_answer_does_not_grow(policy: Policy) -> None:
    watch = policy.answers.watch()
    tracemalloc.start()
    sizes = []
    for _ in range(3):
        for _ in range(500):
            watch.feed("Ordinary words go by, one after another. ")
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    watch.close()
    assert sizes[-1] - sizes[0] < 4096


def test_a_stream_and_a_whole_text_are_judged_alike(policy: Policy) -> None:
    text = f"Call +7 916 123-45-67 or mail a.b@example.com; ИНН 7707083893; key {KEYS[0]}"
    whole = policy.scanners[Direction.OUTPUT].scan(text)
    streamed = watched(policy.answers, list(text))[-1].verdict
    assert streamed is not None
    assert {found.rule for found in whole} == {found.rule for found in streamed.findings}


@pytest.mark.parametrize("number", ["4111111111111111", "5555555555554444", "6011111111111117", "2200700712345676"])
def test_test_cards_pass_luhn(number: str) -> None:
    assert luhn(number.encode())


def test_the_class_of_an_answer_is_that_of_all_that_was_found(policy: Policy) -> None:
    pieces = [*["ИНН 7707083893, "] * 120, "ИНН 500100732259"]
    verdict = watched(policy.answers, pieces)[-1].verdict
    assert verdict is not None
    assert "personal_data.inn" not in {found.rule for found in verdict.findings}
    assert verdict.data_class is DataClass.SENSITIVE
