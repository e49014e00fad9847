"""Between a tenant's rules as messages and in the words of packs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from llmmesh.chat.v1 import chat_pb2
from llmmesh.guard.v1 import guard_pb2
from meshkit.errors import FieldInvalid
from services.guard.rulebook import PREFIX
from services.guard.trials import Words

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper as EnumType

Value = TypeVar("Value", bound=int)

MOST_RULES = 100
MOST_PATTERNS = 20
MOST_EXAMPLES = 20
LONGEST_PATTERN = 1000
LONGEST_EXAMPLE = 2000
ID = re.compile(r"[a-z0-9_]{1,60}")
SIDES = {guard_pb2.DIRECTION_INPUT: "input", guard_pb2.DIRECTION_OUTPUT: "output"}


def words_of(rules: Sequence[guard_pb2.Rule]) -> list[Words]:
    """Rules in the words of packs.

    Raises:
        FieldInvalid: If there are too many, or one of them says what no rule can.
    """
    if len(rules) > MOST_RULES:
        raise FieldInvalid("rules", f"must hold at most {MOST_RULES}")
    ids = [rule.id for rule in rules]
    for number, rule_id in enumerate(ids):
        if not ID.fullmatch(rule_id):
            raise FieldInvalid(f"rules[{number}].id", "must be 1 to 60 lower-case letters, digits and underscores")
        if rule_id in ids[:number]:
            raise FieldInvalid(f"rules[{number}].id", f"{rule_id!r} is the id of another rule too")
    return [_words(f"rules[{number}]", rule) for number, rule in enumerate(rules)]


def rule_messages(rules_json: str) -> list[guard_pb2.Rule]:
    """Rules as they are kept, as messages."""
    return [_message(words) for words in json.loads(rules_json or "[]")]


def _words(place: str, rule: guard_pb2.Rule) -> dict[str, Any]:
    action = _word(f"{place}.action", guard_pb2.Action, rule.action) or "allow"
    severity = _word(f"{place}.severity", guard_pb2.RiskLevel, rule.severity)
    return {
        "id": PREFIX + rule.id,
        "category": rule.category or "confidential",
        "languages": ["any"],
        "direction": _direction(f"{place}.directions", rule.directions),
        "severity": severity or ("critical" if action == "block" else "medium"),
        "action": action,
        "data_class": _word(f"{place}.data_class", chat_pb2.DataClass, rule.data_class) or "public",
        "patterns": _texts(f"{place}.patterns", rule.patterns, MOST_PATTERNS, LONGEST_PATTERN),
        "case_sensitive": rule.case_sensitive,
        "must_match": _texts(f"{place}.must_match", rule.must_match, MOST_EXAMPLES, LONGEST_EXAMPLE),
        "must_not_match": _texts(f"{place}.must_not_match", rule.must_not_match, MOST_EXAMPLES, LONGEST_EXAMPLE),
    }


def _message(words: Mapping[str, Any]) -> guard_pb2.Rule:
    return guard_pb2.Rule(
        id=words["id"].removeprefix(PREFIX),
        directions=[side for side, word in SIDES.items() if words["direction"] == word],
        category=words["category"],
        severity=guard_pb2.RiskLevel.Value(f"RISK_LEVEL_{words['severity'].upper()}"),
        action=guard_pb2.Action.Value(f"ACTION_{words['action'].upper()}"),
        data_class=chat_pb2.DataClass.Value(f"DATA_CLASS_{words['data_class'].upper()}"),
        patterns=words["patterns"],
        case_sensitive=words["case_sensitive"],
        must_match=words["must_match"],
        must_not_match=words["must_not_match"],
        max_length=words.get("max_length", 0),
    )


def _direction(field: str, sides: Iterable[guard_pb2.Direction.ValueType]) -> str:
    if unknown := [side for side in sides if side not in SIDES]:
        raise FieldInvalid(field, f"knows no side {unknown[0]}: input or output, or none for both")
    wanted = {SIDES[side] for side in sides}
    return wanted.pop() if len(wanted) == 1 else "both"


def _word(field: str, enum: EnumType[Value], value: Value) -> str:
    """The word of an enum value; empty when it is unspecified."""
    if value not in enum.values():
        raise FieldInvalid(field, f"has no value {value}")
    prefix = enum.keys()[0].removesuffix("UNSPECIFIED")
    return enum.Name(value).removeprefix(prefix).lower() if value else ""


def _texts(field: str, texts: Sequence[str], most: int, longest: int) -> list[str]:
    if not 1 <= len(texts) <= most:
        raise FieldInvalid(field, f"must hold 1 to {most} texts")
    for number, text in enumerate(texts):
        if not 1 <= len(text) <= longest:
            raise FieldInvalid(f"{field}[{number}]", f"must be 1 to {longest} characters long")
    return list(texts)
