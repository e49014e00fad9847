"""The form that a caller asked an answer to have: any JSON object, or JSON that follows a schema."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from meshkit.errors import FieldInvalid
from services.gateway.schema_cost import SchemaCost, extent

LONGEST_SCHEMA = 64 * 1024
LONGEST_FAULT = 300
MOST_WORK = 20_000_000
"""Schemas met by all values of one answer together: about a second."""
USUAL_DEPTH = 4
"""A schema that makes too much work of an answer nested so deep is refused beforehand."""
MOST_KEPT = 256
HIDDEN = "the value"
"""Stands for what an answer holds in what is said of its faults."""

OutputFormat = Callable[[str], str | None]
"""What is wrong with an answer's text; None when nothing is."""


def output_format(response_format_json: str) -> OutputFormat | None:
    """The form asked for by OpenAI's `response_format`; None when any text will do.

    Raises:
        FieldInvalid: If it holds a schema that is none, that is too large, or that would take too long.
    """
    if "json" not in response_format_json:
        return None
    wanted = _read(response_format_json)
    if wanted.get("type") == "json_object":
        return _object_fault
    if wanted.get("type") != "json_schema":
        return None
    named = wanted.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise FieldInvalid("response_format", "json_schema.schema must be a JSON Schema object")
    try:
        text = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        # All of it was JSON: it only cannot be written as deep as it can be read.
        raise FieldInvalid("response_format", "the schema is nested too deep") from error
    if len(text) > LONGEST_SCHEMA:
        raise FieldInvalid("response_format", f"the schema must be at most {LONGEST_SCHEMA} bytes")
    return _schema_format(text)


def _read(text: str) -> dict[str, Any]:
    """What was asked for; numbers and depths that pass as bytes elsewhere need not be readable."""
    try:
        wanted = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise FieldInvalid("response_format", f"must be JSON ({error})") from error
    if not isinstance(wanted, dict):
        raise FieldInvalid("response_format", "must be an object")
    return wanted


def _object_fault(text: str) -> str | None:
    try:
        return None if isinstance(orjson.loads(text), dict) else "it is JSON, but no object"
    except orjson.JSONDecodeError:
        return "it is not JSON"


@lru_cache(MOST_KEPT)
def _schema_format(schema_text: bytes) -> OutputFormat:
    schema = orjson.loads(schema_text)
    cost = SchemaCost(schema)
    if cost.at(USUAL_DEPTH) > MOST_WORK:
        raise FieldInvalid("response_format", "the schema branches too much: use fewer references")
    validator = _validator(schema)

    def fault(text: str) -> str | None:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return "it is not JSON"
        depth, count = extent(value)
        if cost.at(depth) * count > MOST_WORK:
            return "it is too large, or nested too deep, to be checked against this schema"
        found = next(iter(validator.iter_errors(value)), None)
        return _told(found) if found else None

    return fault


def _validator(schema: Any) -> jsonschema_rs.Validator:
    """Linear in the text for any pattern; asks no other machine for what a schema refers to."""
    try:
        return jsonschema_rs.validator_for(
            schema, mask=HIDDEN, pattern_options=jsonschema_rs.RegexOptions(), offline=True
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        reason = str(getattr(error, "message", error)).splitlines()[0][:LONGEST_FAULT]
        raise FieldInvalid("response_format", f"the schema cannot be used: {reason}") from error


def _told(error: jsonschema_rs.ValidationError) -> str:
    """Where and what, without any of the answer's own values."""
    place = "".join(f"/{step}" for step in error.instance_path)
    return f"at {place or 'the top'}: {error.message}"[:LONGEST_FAULT]
