"""The policy in force: all rules, compiled and proved by their own tests, under one version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.guard.classifier import WEIGHTS
from services.guard.features import LEXICON
from services.guard.folding import FOLDING_VERSION
from services.guard.kept import Kept
from services.guard.matching import BlockMatcher, ExpressionInvalid, compile_database, is_longer_than
from services.guard.packfiles import PackFile, PacksInvalid, read_packs
from services.guard.patterns import LoadedRule, PatternScanner
from services.guard.phrases import PhraseInvalid, expand
from services.guard.rules import Rule
from services.guard.stream import AnswerRules
from services.guard.verdict import Direction

NOWHERE = Kept(None)


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that judges a text."""

    version: str
    """Changes whenever any rule, the classifier or the way text is normalised does."""
    rule_count: int
    scanners: dict[Direction, PatternScanner]
    answers: AnswerRules


def load_policy(directory: Path, kept: Kept = NOWHERE) -> Policy:
    """Read, compile and test the packs of a directory; what `kept` has seen before is neither compiled nor tested.

    Raises:
        PacksInvalid: If anything at all is wrong, with all mistakes.
    """
    files = read_packs(directory)
    version = _version(files)
    rules = _loaded(files)
    if kept.has_passed(version):
        return _compiled(rules, version, kept)
    _raise(fault for loaded in rules for fault in _unreadable(loaded))
    policy = _compiled(rules, version, kept)
    _raise(mistake for loaded in rules for mistake in _failed_tests(loaded.rule, policy))
    kept.note_passed(version)
    return policy


def _loaded(files: Sequence[PackFile]) -> list[LoadedRule]:
    rules: list[LoadedRule] = []
    mistakes: list[str] = []
    for file in files:
        try:
            words = expand(file.pack.words)
        except PhraseInvalid as error:
            mistakes.append(f"{file.name}: words: {error}")
            continue
        for rule in file.pack.rules:
            try:
                rules.append(LoadedRule(rule, words, file.pack.unless))
            except PhraseInvalid as error:
                mistakes.append(f"{file.name}: {rule.id}: {error}")
    _raise(mistakes)
    return rules


def _compiled(rules: Sequence[LoadedRule], version: str, kept: Kept) -> Policy:
    try:
        return Policy(
            version=version,
            rule_count=len(rules),
            scanners={direction: PatternScanner(rules, direction, kept.database) for direction in Direction},
            answers=AnswerRules([rule for rule in rules if rule.rule.applies_to(Direction.OUTPUT)], kept.database),
        )
    except ExpressionInvalid as error:
        raise PacksInvalid(list(_refused(rules)) or [str(error)]) from error


def _unreadable(loaded: LoadedRule) -> Iterator[str]:
    """What of a rule cannot be read, or is not true: a streamed answer is held back for its max_length."""
    rule = loaded.rule
    try:
        _ = loaded.excuses
        for expression in loaded.expressions:
            if rule.max_length is not None and is_longer_than(expression, rule.max_length):
                yield f"{rule.id}: a match can be longer than max_length {rule.max_length}"
    except (PhraseInvalid, ExpressionInvalid) as error:
        yield f"{rule.id}: {error}"


def _refused(rules: Sequence[LoadedRule]) -> Iterator[str]:
    """The rules that Hyperscan does not take: together they only say that one of them is wrong."""
    for loaded in rules:
        try:
            BlockMatcher(loaded.expressions, compile_database)
        except ExpressionInvalid as error:
            yield f"{loaded.rule.id}: {error}"


def _failed_tests(rule: Rule, policy: Policy) -> Iterator[str]:
    directions = [direction for direction in Direction if rule.applies_to(direction)]
    for text in rule.must_match:
        if not all(_finds(rule, text, policy.scanners[direction]) for direction in directions):
            yield f"{rule.id}: must match {text!r} and does not"
    for text in rule.must_not_match:
        if any(_finds(rule, text, policy.scanners[direction]) for direction in directions):
            yield f"{rule.id}: must not match {text!r} and does"


def _finds(rule: Rule, text: str, scanner: PatternScanner) -> bool:
    return any(finding.rule == rule.id for finding in scanner.scan(text))


def _version(files: Sequence[PackFile]) -> str:
    digest = hashlib.sha256(FOLDING_VERSION.encode())
    for trained in (LEXICON, WEIGHTS):
        digest.update(trained.read_bytes())
    for file in files:
        digest.update(file.pack.model_dump_json().encode())
    return digest.hexdigest()[:16]


def _raise(mistakes: Iterator[str] | list[str]) -> None:
    if found := list(mistakes):
        raise PacksInvalid(found)
