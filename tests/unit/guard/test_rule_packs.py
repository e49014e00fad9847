"""A pack with a mistake does not load, and all its mistakes are named; the policy's version follows the rules."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.guard.gating import Gate, heads
from services.guard.matching import compile_database
from services.guard.packfiles import PacksInvalid
from services.guard.phrases import Locator, PhraseInvalid, expand, fold_pattern, parts
from services.guard.policy import load_policy
from tests.unit.guard.conftest import PACKS

RULE: dict[str, Any] = {
    "id": "test.rule",
    "category": "secret",
    "languages": ["any"],
    "direction": "output",
    "severity": "critical",
    "action": "block",
    "max_length": 8,
    "patterns": ["zz[0-9]{6}"],
    "must_match": ["zz123456"],
    "must_not_match": ["zz12345"],
}


def mistakes(folder: Path, *rules: dict[str, Any], **pack: Any) -> list[str]:
    (folder / "test.yaml").write_text(yaml.safe_dump({"rules": list(rules), **pack}), "utf-8")
    with pytest.raises(PacksInvalid) as caught:
        load_policy(folder)
    return caught.value.mistakes


def test_a_sound_pack_loads(tmp_path: Path) -> None:
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rules": [RULE]}), "utf-8")
    policy = load_policy(tmp_path)
    assert (policy.rule_count, policy.answers.longest) == (1, 8)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"must_match": ["zz1", "zz2"]}, "must match 'zz1'"),
        ({"must_not_match": ["zz999999"]}, "must not match 'zz999999'"),
        ({"max_length": 7}, "can be longer than max_length 7"),
        ({"max_length": None}, "a rule for answers needs max_length"),
        ({"patterns": ["zz[0-9]+"]}, "can be longer than max_length 8"),
        ({"patterns": ["zz[0-9]{6"]}, "test.rule:"),
        ({"patterns": ["(?<=a)zz"]}, "test.rule:"),
        ({"patterns": ["[а-я]z"]}, "folded letters have no order"),
        ({"patterns": []}, "needs phrases or patterns"),
        ({"severity": "high"}, "a rule that stops answers is critical"),
        ({"severity": "awful"}, "must be one of low, medium, high, critical"),
        ({"check": "horoscope"}, "check must be one of"),
        ({"phrases": ["a b"]}, "a rule for answers has neither phrases nor unless"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    assert any(told in mistake for mistake in mistakes(tmp_path, {**RULE, **change}))


def test_all_mistakes_of_all_rules_are_named_at_once(tmp_path: Path) -> None:
    found = mistakes(tmp_path, {**RULE, "must_match": ["a", "b"]}, {**RULE, "id": "test.other", "must_match": ["c"]})
    assert len(found) == 3


def test_two_rules_may_not_share_a_name(tmp_path: Path) -> None:
    assert mistakes(tmp_path, RULE, RULE) == ["test.rule: 2 rules have this id"]


@pytest.mark.parametrize(
    "content", ["rules: слово".encode("cp1251"), b"rules: 2026-09-31"], ids=["not UTF-8", "no such day"]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "test.yaml").write_bytes(content)
    assert unreadable(tmp_path)


def test_a_link_to_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "test.yaml").symlink_to(tmp_path / "gone")
    assert unreadable(tmp_path)


def unreadable(folder: Path) -> bool:
    """Whether the only mistake of a folder is that test.yaml cannot be read."""
    with pytest.raises(PacksInvalid) as caught:
        load_policy(folder)
    (mistake,) = caught.value.mistakes
    return mistake.startswith("test.yaml: cannot be read: ")


def test_an_unknown_word_is_named(tmp_path: Path) -> None:
    asked = {**RULE, "direction": "input", "phrases": ["{NOBODY} knows"], "patterns": []}
    assert "the pack has no words 'NOBODY'" in mistakes(tmp_path, asked)[0]


def test_a_folder_without_packs_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(PacksInvalid):
        load_policy(tmp_path)


def test_the_version_changes_with_any_rule_and_only_then(tmp_path: Path) -> None:
    copied = Path(shutil.copytree(PACKS, tmp_path / "packs"))
    first = load_policy(copied).version
    assert load_policy(copied).version == first
    path = copied / "secrets.yaml"
    path.write_text(path.read_text("utf-8").replace("severity: medium", "severity: low", 1), "utf-8")
    assert load_policy(copied).version != first


def test_a_phrase_takes_any_separators_and_bounded_gaps() -> None:
    locator = Locator(["ignore <2> (rule|law)s?"], {})
    for text in ("ignore rules", "ignore -- \n rules", "ignore the_old rules", "ignore, law"):
        assert list(locator.find(fold_pattern(text))) == [(0, len(text))]
    assert not list(locator.find(b"ignore one two three rules"))
    assert not list(locator.find(b"ignorerules or xignore rules"))


def test_a_phrase_in_capitals_is_refused() -> None:
    with pytest.raises(PhraseInvalid):
        Locator(["Ignore rules"], {})


@pytest.mark.parametrize(
    ("phrase", "found"),
    [
        ("(a|b) cat", {b" a cat ", b" b cat "}),
        ("cat(s)?", {b" cat ", b" cats "}),
        (r"cat\w*", {b" cat"}),
        ("(the )?cat", {b" the cat ", b" cat "}),
        (r"\w+cat", set()),
        ("dog( or cat)*", {b" dog"}),
    ],
)
def test_heads_are_how_a_phrase_may_begin(phrase: str, found: set[bytes]) -> None:
    assert heads(parts(phrase, {})[0]) == found


def test_whatever_a_phrase_finds_its_gate_lets_through() -> None:
    """The gate may only ever save work: every rule's own texts pass it wherever the phrase itself matches."""
    for path in sorted(PACKS.glob("*.yaml")):
        pack = yaml.safe_load(path.read_text("utf-8"))
        words = expand(pack.get("words", {}))
        phrases = [phrase for rule in pack["rules"] for phrase in rule.get("phrases", ())]
        if not phrases:
            continue
        gate = Gate([parts(phrase, words) for phrase in phrases], compile_database)
        for text in (text for rule in pack["rules"] for text in rule["must_match"]):
            lowered = fold_pattern(text.replace("[", " ").replace("]", " ")).lower()
            open_for = set(gate.open_for(lowered))
            for number, phrase in enumerate(phrases):
                assert number in open_for or not list(Locator([phrase], words).find(lowered)), (phrase, text)
