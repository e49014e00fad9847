"""The policy in force: all rules, compiled and proved by their own tests, under one version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.guard.folding import FOLDING_VERSION
from services.guard.matching import BlockMatcher, ExpressionInvalid, is_longer_than
from services.guard.packfiles import PackFile, PacksInvalid, read_packs
from services.guard.patterns import LoadedRule, PatternScanner
from services.guard.phrases import PhraseInvalid, expand
from services.guard.rules import Rule
from services.guard.stream import AnswerRules
from services.guard.verdict import Direction


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that judges a text."""

    version: str
    """Changes whenever any rule or the way text is normalised does."""
    rule_count: int
    scanners: dict[Direction, PatternScanner]
    answers: AnswerRules


def load_policy(directory: Path) -> Policy:
    """Read, compile and test the packs of a directory.

    Raises:
        PacksInvalid: If anything at all is wrong, with all mistakes.
    """
    files = read_packs(directory)
    rules = _loaded(files)
    policy = _compiled(rules, _version(files))
    _raise(mistake for loaded in rules for mistake in _failed_tests(loaded.rule, policy))
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
                loaded = LoadedRule(rule, words, file.pack.unless)
                mistakes.extend(f"{file.name}: {rule.id}: {fault}" for fault in _too_long(loaded))
                rules.append(loaded)
            except (PhraseInvalid, ExpressionInvalid) as error:
                mistakes.append(f"{file.name}: {rule.id}: {error}")
    _raise(mistakes)
    return rules


def _compiled(rules: Sequence[LoadedRule], version: str) -> Policy:
    try:
        return Policy(
            version=version,
            rule_count=len(rules),
            scanners={direction: PatternScanner(rules, direction) for direction in Direction},
            answers=AnswerRules([loaded for loaded in rules if loaded.rule.applies_to(Direction.OUTPUT)]),
        )
    except ExpressionInvalid as error:
        raise PacksInvalid(list(_refused(rules)) or [str(error)]) from error


def _too_long(loaded: LoadedRule) -> Iterator[str]:
    """What a streamed answer is held back for must be true."""
    longest = loaded.rule.max_length
    for expression in loaded.expressions:
        if longest is not None and is_longer_than(expression, longest):
            yield f"a match can be longer than max_length {longest}"


def _refused(rules: Sequence[LoadedRule]) -> Iterator[str]:
    """The rules that Hyperscan does not take: together they only say that one of them is wrong."""
    for loaded in rules:
        try:
            BlockMatcher(loaded.expressions)
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
    for file in files:
        digest.update(file.pack.model_dump_json().encode())
    return digest.hexdigest()[:16]


def _raise(mistakes: Iterator[str] | list[str]) -> None:
    if found := list(mistakes):
        raise PacksInvalid(found)
