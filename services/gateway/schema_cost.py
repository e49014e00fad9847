"""How much work a JSON Schema may make of an answer: a few references can unfold without end."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from meshkit.errors import FieldInvalid

INSIDE = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "items",
        "patternProperties",
        "prefixItems",
        "properties",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""Keywords that judge what lies inside a value; all others judge the value itself."""
UNFOLLOWED = frozenset({"$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$id"})
"""Ways to refer that are not followed here, so that no reference escapes the count."""
PLACE = re.compile(r"#(/(?!.*%(2f|7e))|\Z)", re.IGNORECASE | re.DOTALL)
"""Begins a reference to a place in the schema; an encoded slash or tilde could be read in two ways."""
WITHOUT_ID = re.compile(r"https?://json-schema\.org/(draft-0[67]|draft/2019-09|draft/2020-12)/schema#?")
"""Versions of JSON Schema to which `id` is nothing; to draft 4 it is what `$id` is to them."""
APART = frozenset({"$defs", "definitions"})
NAMED = frozenset({"dependencies", "dependentSchemas", "patternProperties", "properties"})
"""Keywords that hold schemas by name; such a name is no keyword, whatever it is."""


class SchemaCost:
    """Counts the schemas that one value meets, references unfolded."""

    def __init__(self, schema: Any) -> None:
        """Raises FieldInvalid for a reference to anything but a place in the schema."""
        self._root = schema
        self._counted: dict[tuple[int, int], int] = {}
        nodes = [node for node in _nodes(schema) if isinstance(node, dict)]
        knows_id = any(_knows_id(node.get("$schema")) for node in nodes)
        for node in nodes:
            if found := _unfollowed(node, knows_id=knows_id):
                raise FieldInvalid("response_format", f"the schema must do without {found}: refer by $ref to #/a/b")

    def at(self, depth: int) -> int:
        """The most schemas that any value meets in an answer nested so deep; no number is enough beyond some depth."""
        try:
            return self._count(self._root, depth)
        except RecursionError:
            # What was only begun stands there as nothing, and must not pass for that the next time.
            self._counted.clear()
            return sys.maxsize

    def _count(self, node: Any, depth: int) -> int:
        if not isinstance(node, dict | list) or depth < 0:
            return 0
        key = (id(node), depth)
        if key not in self._counted:
            self._counted[key] = 0  # what refers to itself without going inside ends there
            self._counted[key] = 1 + sum(self._count(child, left) for child, left in self._children(node, depth))
        return self._counted[key]

    def _children(self, node: Any, depth: int) -> Iterator[tuple[Any, int]]:
        if isinstance(node, list):
            yield from ((child, depth) for child in node)
            return
        for keyword, value in node.items():
            left = depth - 1 if keyword in INSIDE else depth
            if keyword == "$ref":
                yield self._target(value), depth
            elif keyword in NAMED and isinstance(value, dict):
                yield from ((each, left) for each in value.values())
            elif keyword not in APART:
                yield value, left

    def _target(self, reference: Any) -> Any:
        """The place that `#/a/b` names."""
        place = self._root
        try:
            for step in unquote(str(reference), errors="strict").split("/")[1:]:
                step = step.replace("~1", "/").replace("~0", "~")
                place = place[int(step)] if isinstance(place, list) else place[step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise FieldInvalid("response_format", f"the schema has no {reference!r}") from None
        return place


def extent(value: Any) -> tuple[int, int]:
    """How deep a JSON value is nested and how many values it holds."""
    deepest = count = 0
    level = [value]
    while level:
        deepest, count = deepest + 1, count + len(level)
        level = [child for each in level for child in _inner(each)]
    return deepest - 1, count


def _knows_id(version: Any) -> bool:
    """Whether `id` may mean something in a schema that calls itself so; one that does not is of the newest version."""
    return isinstance(version, str) and not WITHOUT_ID.fullmatch(version)


def _unfollowed(node: dict[str, Any], *, knows_id: bool) -> str | None:
    """A word of the node that refers, or has others refer, otherwise than is followed here."""
    if knows_id and isinstance(node.get("id"), str):
        return "id"
    reference = node.get("$ref")
    if isinstance(reference, str) and not PLACE.match(reference):
        return repr(reference)
    return min(UNFOLLOWED & node.keys(), default=None)


def _nodes(value: Any) -> Iterator[Any]:
    left = [value]
    while left:
        node = left.pop()
        yield node
        left.extend(_inner(node))


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
