"""`python -m services.guard.trial`: tries a tenant's rules, read from stdin, in a process that may fail for them.

Hyperscan takes minutes and gigabytes over some expressions before it refuses them: here it has seconds. Every line of
stdout says which rule is being tried, or in the end what is wrong, or the rules as they are to be kept.
"""

from __future__ import annotations

import json
import resource
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from services.guard.matching import BlockMatcher, Expression, ExpressionInvalid, compile_database, is_longer_than
from services.guard.patterns import LoadedRule, PatternScanner
from services.guard.phrases import PhraseInvalid, fold_pattern
from services.guard.rulebook import Rulebook, rulebook
from services.guard.rules import Rule
from services.guard.stream import AnswerRules
from services.guard.verdict import Direction

CPU_SECONDS = 4
MEMORY_BYTES = 512 << 20
"""Of address space: less than what a guard's container has."""
LONGEST_MATCH = 256
FIELDS = {"direction": "directions", "max_length": "patterns", "languages": "patterns"}
"""What the author of a rule calls a field."""


class Fault(Exception):
    """What is wrong with rules, and where."""

    def __init__(self, field: str, told: str) -> None:
        super().__init__(told)
        self.field = field


def main() -> None:
    """Try the rules."""
    stated = json.load(sys.stdin)
    _limit()
    try:
        rules = [_read(number, words) for number, words in enumerate(stated)]
        _say(at="rules")
        _try_examples(rules, rulebook(rules, ""))
    except Fault as fault:
        _say(field=fault.field, told=str(fault))
    else:
        _say(rules=stated)


def _limit() -> None:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(spent.ru_utime + spent.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(number: int, words: dict[str, Any]) -> Rule:
    """The rule, with the length of its longest match put into its words. Raises Fault."""
    place = f"rules[{number}]"
    lengths = [_longest(f"{place}.patterns[{index}]", words, each) for index, each in enumerate(words["patterns"])]
    if words["direction"] != "input":
        words["max_length"] = max(lengths, default=1)
    try:
        _say(at=f"{place}.patterns")
        rule = Rule.model_validate(words)
        _compile(LoadedRule(rule, {}))
    except ValidationError as error:
        raise _faulty_field(place, error) from error
    except (PhraseInvalid, ExpressionInvalid) as error:
        raise Fault(f"{place}.patterns", _told(error)) from error
    return rule


def _compile(loaded: LoadedRule) -> None:
    BlockMatcher(loaded.expressions, compile_database)
    if loaded.rule.applies_to(Direction.OUTPUT):
        AnswerRules([loaded], compile_database)


def _faulty_field(place: str, error: ValidationError) -> Fault:
    fault = error.errors()[0]
    field = "".join(f".{FIELDS.get(str(step), step)}" for step in fault["loc"][:1])
    return Fault(place + field, fault["msg"].removeprefix("Value error, "))


def _longest(place: str, words: Mapping[str, Any], pattern: str) -> int:
    """Length of the longest match of a pattern; LONGEST_MATCH + 1 for all that are longer. Raises Fault."""
    _say(at=place)
    try:
        expression = Expression(fold_pattern(pattern), case_sensitive=words["case_sensitive"])
        if is_longer_than(expression, LONGEST_MATCH):
            return _unbounded(place, words)
        shorter = range(1, LONGEST_MATCH)
        return 1 + bisect_left(shorter, True, key=lambda length: not is_longer_than(expression, length))
    except (PhraseInvalid, ExpressionInvalid) as error:
        raise Fault(place, _told(error)) from error


def _unbounded(place: str, words: Mapping[str, Any]) -> int:
    if words["direction"] == "input":
        return LONGEST_MATCH + 1
    longer = f"a match can be longer than {LONGEST_MATCH} characters"
    raise Fault(place, f"{longer}: bound its repeats, as in {{0,20}}, or look at prompts only")


def _try_examples(rules: Sequence[Rule], book: Rulebook) -> None:
    for number, rule in enumerate(rules):
        scanners = [scanner for direction, scanner in book.scanners.items() if rule.applies_to(direction)]
        for index, text in enumerate(rule.must_match):
            if not all(_finds(scanner, rule, text) for scanner in scanners):
                raise Fault(f"rules[{number}].must_match[{index}]", "the rule does not find it")
        for index, text in enumerate(rule.must_not_match):
            if any(_finds(scanner, rule, text) for scanner in scanners):
                raise Fault(f"rules[{number}].must_not_match[{index}]", "the rule finds it")


def _finds(scanner: PatternScanner, rule: Rule, text: str) -> bool:
    return any(found.rule == rule.id for found in scanner.scan(text))


def _told(error: Exception) -> str:
    return f"is no expression that can be used: {error}"


def _say(**words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
