"""Every reason of the API has an error, an OpenAI shape and a line in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from llmmesh.errors.v1.errors_pb2 import ErrorReason
from meshkit import errors
from meshkit.errors import MeshError
from meshkit.openai import openai_error, openai_error_header

REASONS = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"}
CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, MeshError)]
DOCUMENTED = {
    line.split("|")[1].strip(" `"): [cell.strip(" `") for cell in line.split("|")[2:]]
    for line in Path("docs/errors.md").read_text().splitlines()
    if re.match(r"\| `[A-Z_]+` \|", line)
}


def test_every_reason_is_raised_by_an_error_and_no_error_invents_one() -> None:
    assert {error.reason for error in CLASSES} == REASONS


def test_every_reason_is_documented() -> None:
    assert set(DOCUMENTED) == REASONS


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_the_documentation_says_status_type_and_code(error: type[MeshError]) -> None:
    status, _, shape, *_ = DOCUMENTED[error.reason]
    body = openai_error(error.reason, "x")["error"]
    if error is not errors.DependencyTimeout:  # one reason, two statuses: away or too slow
        assert status == error.code.name
    assert shape.replace("`", "") == f"{body['type']} / {body['code']}"


def test_the_field_at_fault_is_openais_param() -> None:
    assert openai_error("FIELD_INVALID", "x", {"field": "messages[0].role"})["error"]["param"] == "messages[0].role"


def test_an_error_header_is_ascii_and_survives_any_text() -> None:
    text = "привет «мир» 🎉\x7f\n"
    header = openai_error_header("INTERNAL", text, {})
    assert header.isascii()
    assert header.isprintable(), "no header holds other characters"
    assert "\\u043f" in header
    assert orjson.loads(header)["error"]["message"] == text


def test_what_is_too_long_for_headers_is_cut_between_characters() -> None:
    error = MeshError("a" + "ы" * 50_000, model="ж" * 50_000)
    assert str(error) == "a" + "ы" * 399
    assert error.metadata == {"model": "ж" * 200}
