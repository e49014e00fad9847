"""What form an answer was asked to have, and what is wrong with one that has it not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from meshkit.errors import FieldInvalid
from services.gateway.output_format import MOST_WORK, output_format
from services.gateway.schema_cost import SchemaCost

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
DRAFT_4 = "http://json-schema.org/draft-04/schema#"
TREE = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}


def wanted(schema: Any) -> str:
    return json.dumps({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})


def fault(schema: Any, text: str) -> str | None:
    form = output_format(wanted(schema))
    assert form is not None
    return form(text)


def branching(keyword: str, length: int) -> dict[str, Any]:
    """A schema of a few lines that unfolds to 2 ** length."""
    definitions = {f"a{n}": {keyword: [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(length)}
    return {"$defs": {**definitions, f"a{length}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize("asked", ["", '{"type":"text"}', '{"type":"grammar","grammar":"json"}'])
def test_any_text_will_do_where_no_json_was_asked_for(asked: str) -> None:
    assert output_format(asked) is None


@pytest.mark.parametrize(
    ("text", "right"), [('{"a": 1}', True), (" {} ", True), ("[]", False), ("1", False), ("```json\n{}\n```", False)]
)
def test_a_json_object_is_just_that(text: str, right: bool) -> None:
    form = output_format('{"type":"json_object"}')
    assert form is not None
    assert (form(text) is None) is right


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"name":"Ada","age":36}', None),
        ('{"name":"Ada"}', 'at the top: "age" is a required property'),
        ('{"name":"Ada","age":-1}', "at /age: the value is less than the minimum of 0"),
        ('{"name":"Ada","age":"ivan@example.ru"}', 'at /age: the value is not of type "integer"'),
        ("Sure! Here it is", "it is not JSON"),
        ("", "it is not JSON"),
    ],
)
def test_a_fault_says_where_and_what_without_the_answers_own_words(text: str, told: str | None) -> None:
    assert fault(PERSON, text) == told


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"pattern": "("},
        {"pattern": "(?=lookahead)"},
        {"$ref": "http://127.0.0.1:1/schema"},
        {"$ref": "#/$defs/none"},
        {"$dynamicRef": "#a"},
        {"$schema": DRAFT_4, "id": "http://127.0.0.1:1/schema"},
        {"$schema": DRAFT_4, "properties": {"a": {"id": "#a"}}},
        {"items": {"$schema": DRAFT_4, "id": "a"}},
        {"#": {"$defs": {"a": {}}}, "$defs": {"a": {}}, "$ref": "./#/$defs/a"},
        {"$defs": {"a": {"b": {}}, "a/b": {}}, "$ref": "#/$defs/a%2Fb"},
        {"description": "x" * 70_000},
        nested(300),
        "no schema",
        None,
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_a_schema_that_cannot_be_used_is_refused_by_name(schema: Any) -> None:
    with pytest.raises(FieldInvalid) as caught:
        output_format(wanted(schema))
    assert caught.value.metadata["field"] == "response_format"


@pytest.mark.parametrize("asked", ['["json"]', '"json_object"', '{"type":"json_object","x":1e999}'])
def test_what_cannot_be_read_as_a_response_format_is_refused_by_name(asked: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        output_format(asked)
    assert caught.value.metadata["field"] == "response_format"


def test_a_schema_may_refer_to_itself() -> None:
    assert fault(TREE, '{"children": [{"children": [{"children": []}]}]}') is None
    assert fault(TREE, '{"children": [{"children": [{"children": 1}]}]}') is not None


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
def test_a_schema_that_unfolds_without_end_costs_nobody_any_time(keyword: str) -> None:
    started = time.perf_counter()
    with pytest.raises(FieldInvalid, match="branches too much"):
        output_format(wanted(branching(keyword, 60)))
    assert time.perf_counter() - started < 1


def test_an_id_of_draft_4_hides_no_work() -> None:
    parts = branching("anyOf", 60)["$defs"]
    elsewhere = {"id": "http://127.0.0.1:1/", "$defs": parts, "allOf": [{"$ref": "#/$defs/a0"}]}
    schema = {"$schema": DRAFT_4, "$defs": {name: {} for name in parts}, "allOf": [elsewhere]}
    with pytest.raises(FieldInvalid, match="must do without id"):
        output_format(wanted(schema))


def test_a_reference_in_other_letters_hides_no_work() -> None:
    schema = branching("anyOf", 60)
    schema["$defs"]["%610"] = {}
    schema["$ref"] = "#/$defs/%610"
    with pytest.raises(FieldInvalid, match="branches too much"):
        output_format(wanted(schema))


@pytest.mark.parametrize("version", [{}, {"$schema": DRAFT_4}])
def test_a_property_may_be_called_id(version: dict[str, str]) -> None:
    schema = {**version, "properties": {"id": {"type": "string"}}}
    assert fault(schema, '{"id": "a"}') is None
    assert fault(schema, '{"id": 1}') is not None


def test_an_answer_nested_to_make_a_schema_unfold_costs_nobody_any_time() -> None:
    schema = {"anyOf": [{"type": "integer"}, {"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}
    started = time.perf_counter()
    assert "nested too deep" in str(fault(schema, "[" * 200 + '"x"' + "]" * 200))
    assert time.perf_counter() - started < 1
    assert fault(schema, "[[[1]]]") is None


@pytest.mark.parametrize("name", ["definitions", "$defs", "items", "properties"])
def test_a_property_named_like_a_keyword_hides_no_work(name: str) -> None:
    schema = {"type": "object", "allOf": [{"properties": {name: {"$ref": "#"}}}] * 2}
    # Too deep to be checked, and soon checked all the same by a gateway that does not see it.
    assert "nested too deep" in str(fault(schema, f'{{"{name}":' * 18 + "{}" + "}" * 18))


def test_what_was_too_much_work_to_count_is_so_the_next_time() -> None:
    cost = SchemaCost({"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]})
    for depth in (200, 200, 150):
        assert cost.at(depth) > MOST_WORK


def test_a_pattern_that_backtracks_without_end_elsewhere_takes_no_time_here() -> None:
    started = time.perf_counter()
    assert fault({"pattern": "^(a+)+$"}, json.dumps("a" * 5000 + "b")) is not None
    assert time.perf_counter() - started < 1
