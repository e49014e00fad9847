"""What the guard thinks of a text; the numbers of the enums are those of the proto."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

MOST_OF_A_RULE = 100
"""Findings that a verdict names."""
NOTE = "escalation"
"""Category of what a verdict says about the layers themselves."""
FAILED, FAILED_OPEN = "failed", "failed_open"
"""What a verdict says of a layer that gave no judgement; the latter where the tenant lets that pass."""


class Direction(IntEnum):
    """Which side a text comes from."""

    INPUT = 1
    OUTPUT = 2


class Action(IntEnum):
    """What to do with a text; a greater number overrides a smaller one."""

    ALLOW = 1
    MASK = 2
    BLOCK = 3
    ERROR = 4


class RiskLevel(IntEnum):
    """How bad a text is."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class DataClass(IntEnum):
    """How sensitive a text is."""

    PUBLIC = 1
    INTERNAL = 2
    CONFIDENTIAL = 3
    SENSITIVE = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a scanner found; `start` and `end` count characters of the original text."""

    rule: str
    category: str
    severity: RiskLevel
    action: Action
    data_class: DataClass
    start: int
    end: int
    layer: str = "patterns"
    score: float = 1.0
    message_index: int = 0
    final: bool = True
    """Whether no other layer may overrule it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a text, and why."""

    action: Action
    risk_level: RiskLevel
    data_class: DataClass
    findings: tuple[Finding, ...] = ()
    layer_seconds: Mapping[str, float] = field(default_factory=dict)

    def at_least(self, data_class: DataClass) -> Verdict:
        """The same with no laxer a class than this: whose text it is may know better."""
        return replace(self, data_class=max(self.data_class, data_class))


def merge(findings: Iterable[Finding], layer_seconds: Mapping[str, float]) -> Verdict:
    """The strictest of what was found; a text with no finding is allowed, low and public."""
    outermost = tuple(_outermost(findings))
    return Verdict(
        action=max((found.action for found in outermost), default=Action.ALLOW),
        risk_level=max((found.severity for found in outermost), default=RiskLevel.LOW),
        data_class=max((found.data_class for found in outermost), default=DataClass.PUBLIC),
        findings=outermost,
        layer_seconds=layer_seconds,
    )


def _outermost(findings: Iterable[Finding]) -> list[Finding]:
    """In order of place, without those inside another of the same rule; of too many of any the strictest, likeliest."""
    reached: dict[tuple[str, int], int] = {}
    outermost: list[Finding] = []
    for found in sorted(findings, key=_place):
        key = (found.rule, found.message_index)
        if found.end > reached.get(key, -1):
            reached[key] = found.end
            outermost.append(found)
    if len(outermost) <= MOST_OF_A_RULE:
        return outermost
    strictest = sorted(outermost, key=lambda found: (found.action, found.score), reverse=True)
    return sorted(_few_of_each(strictest), key=_place)


def _few_of_each(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The first findings of each rule."""
    counts: Counter[str] = Counter()
    for found in findings:
        counts[found.rule] += 1
        if counts[found.rule] <= MOST_OF_A_RULE:
            yield found


def _place(found: Finding) -> tuple[int, int, int]:
    return found.message_index, found.start, -found.end


def note(layer: str, what: str) -> Finding:
    """A word of the verdict about a layer itself, such as that it failed."""
    return Finding(f"{layer}.{what}", NOTE, RiskLevel.LOW, Action.ALLOW, DataClass.PUBLIC, 0, 0, layer)


def undecided(layer_seconds: Mapping[str, float], *findings: Finding) -> Verdict:
    """The verdict of a guard that failed: an error, and the strictest class, since nothing is known of the text."""
    return Verdict(Action.ERROR, RiskLevel.CRITICAL, DataClass.SENSITIVE, findings, layer_seconds)
