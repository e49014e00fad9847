"""The rules of one tenant, ready to judge beside the packs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.guard.matching import compile_database
from services.guard.patterns import LoadedRule, PatternScanner
from services.guard.rules import Rule
from services.guard.stream import AnswerRules
from services.guard.verdict import Direction

LAYER = "tenant_rules"
PREFIX = "tenant."
"""Begins the names of tenants' rules, and no pack's."""


@dataclass(frozen=True, slots=True)
class Rulebook:
    """A tenant's rules, compiled."""

    version: str
    scanners: Mapping[Direction, PatternScanner]
    """Of the sides that any rule looks at."""
    answers: Sequence[AnswerRules]
    """None, or the rules for answers as they are spoken."""


def read_rules(rules_json: str) -> list[Rule]:
    """The rules of a JSON array, in the words of packs."""
    return [Rule.model_validate(words) for words in json.loads(rules_json)]


def rulebook(rules: Sequence[Rule], version: str) -> Rulebook:
    """Compile rules.

    Raises:
        PhraseInvalid, ExpressionInvalid: If one of them cannot be used.
    """
    loaded = [LoadedRule(rule, {}, layer=LAYER) for rule in rules]
    spoken = [each for each in loaded if each.rule.applies_to(Direction.OUTPUT)]
    return Rulebook(
        version=version,
        scanners={
            direction: PatternScanner(loaded, direction, compile_database, LAYER)
            for direction in Direction
            if any(rule.applies_to(direction) for rule in rules)
        },
        answers=[AnswerRules(spoken, compile_database, reads_escapes=True)] if spoken else [],
    )
