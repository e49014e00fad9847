"""How an answer is sampled: the caller's options, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid

MAX_STOP_TEXTS = 16
MAX_SCHEMA_BYTES = 64 * 1024
MAX_COUNTED_PROPERTIES = 100
"""Most that one object may name where a schema bounds their number; of several objects the squares add up to its."""
MAX_REGEX_CHARACTERS = 1000
MAX_FIRST_TOKENS = 20
LIKELIEST: Mapping[str, int | float | bool] = {"temperature": 0.0, "repetition_penalty": 1.0}
"""Parameters that leave nothing to chance, nor to what a model's makers advise."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Checked options; None and absent mean the model's own default."""

    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: str | None = None
    """JSON Schema the answer must follow."""
    json_object: bool = False
    """Whether the answer must be any JSON object."""
    regex: str | None = None
    """Regular expression the whole answer must follow."""
    first_tokens: int = 0
    """How many of the likeliest first tokens to tell."""
    parameters: Mapping[str, int | float | bool] = field(default_factory=dict)
    """The engine's numeric parameters by its own names, such as temperature or top_k."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The values one numeric parameter may take."""

    low: float
    high: float = math.inf
    low_excluded: bool = False
    whole: bool = False

    def admits(self, value: object) -> bool:
        """Whether the value is a number of the right kind within the bounds."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return (
            math.isfinite(value)
            and (value > self.low if self.low_excluded else value >= self.low)
            and value <= self.high
        )

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"{'above' if self.low_excluded else 'at least'} {self.low:g}"
        return f"{kind} {low}" if math.isinf(self.high) else f"{kind} {low}, at most {self.high:g}"


OPTIONS: Mapping[str, Bounds] = {
    "temperature": Bounds(0, 2),
    "top_p": Bounds(0, 1, low_excluded=True),
    "presence_penalty": Bounds(-2, 2),
    "frequency_penalty": Bounds(-2, 2),
    "seed": Bounds(-(2**63), 2**63 - 1, whole=True),
}
EXTRAS: Mapping[str, Bounds] = {
    "top_k": Bounds(-1, 2**31 - 1, whole=True),
    "min_p": Bounds(0, 1),
    "repetition_penalty": Bounds(0.01, 100),  # far beyond it the engine computes with zero and infinity
    "min_tokens": Bounds(0, 2**31 - 1, whole=True),
}


def sampling_of(options: chat_pb2.GenerationOptions) -> Sampling:
    """Check the options and read them; fields no engine here understands are ignored.

    Raises:
        FieldInvalid: Naming the first option that is out of range or asks for tools, which no model here calls.
    """
    refuse_tools(options)
    set_options = {field.name: value for field, value in options.ListFields() if field.name in OPTIONS}
    json_schema, json_object = response_format_of(options.response_format_json)
    return Sampling(
        max_output_tokens=max_output_tokens_of(options),
        stop=stop_of(options),
        json_schema=json_schema,
        json_object=json_object,
        parameters=checked(set_options, OPTIONS) | extras_of(options.extra_json),
    )


def likeliest(max_output_tokens: int, regex: str, first_tokens: int) -> Sampling:
    """The sampling of a continuation that leaves nothing to chance.

    Raises:
        FieldInvalid: Naming what is out of range.
    """
    if max_output_tokens < 1:
        raise FieldInvalid("max_output_tokens", "must be at least 1")
    if len(regex) > MAX_REGEX_CHARACTERS:
        raise FieldInvalid("regex", f"must be at most {MAX_REGEX_CHARACTERS} characters long")
    if not 0 <= first_tokens <= MAX_FIRST_TOKENS:
        raise FieldInvalid("first_tokens", f"must be from 0 to {MAX_FIRST_TOKENS}")
    return Sampling(max_output_tokens, regex=regex or None, first_tokens=first_tokens, parameters=LIKELIEST)


def refuse_tools(options: chat_pb2.GenerationOptions) -> None:
    """Let tools pass only where the caller forbids their use."""
    if options.tools_json and options.tool_choice_json.strip() != '"none"':
        raise FieldInvalid("tools", "this model calls no tools; leave them out or set tool_choice to none")


def max_output_tokens_of(options: chat_pb2.GenerationOptions) -> int | None:
    """The caller's limit of output tokens; None when it set none."""
    if not options.HasField("max_output_tokens"):
        return None
    if options.max_output_tokens < 1:
        raise FieldInvalid("max_output_tokens", "must be at least 1")
    return options.max_output_tokens


def stop_of(options: chat_pb2.GenerationOptions) -> tuple[str, ...]:
    """Texts that end the answer."""
    if len(options.stop) > MAX_STOP_TEXTS:
        raise FieldInvalid("stop", f"must hold at most {MAX_STOP_TEXTS} texts")
    if not all(options.stop):
        raise FieldInvalid("stop", "must hold no empty text")
    return tuple(options.stop)


def checked(values: Mapping[str, Any], bounds: Mapping[str, Bounds]) -> dict[str, int | float | bool]:
    """The values, each within its bounds."""
    for name, value in values.items():
        if not bounds[name].admits(value):
            raise FieldInvalid(name, f"must be {bounds[name]}")
    return dict(values)


def extras_of(extra_json: Mapping[str, str]) -> dict[str, int | float | bool]:
    """The further request fields that the engine understands."""
    values = {name: json_of(name, extra_json[name]) for name in (*EXTRAS, "ignore_eos") if name in extra_json}
    present = {name: value for name, value in values.items() if value is not None}
    ignore_eos = present.pop("ignore_eos", False)
    if not isinstance(ignore_eos, bool):
        raise FieldInvalid("ignore_eos", "must be true or false")
    return checked(present, EXTRAS) | ({"ignore_eos": True} if ignore_eos else {})


def response_format_of(text: str) -> tuple[str | None, bool]:
    """The JSON Schema to follow, and whether any JSON object will do."""
    if not text:
        return None, False
    wanted = json_of("response_format", text)
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    reader = FORMATS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise FieldInvalid("response_format", "type must be text, json_object or json_schema")
    return reader(wanted)


def schema_of(wanted: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The schema inside OpenAI's json_schema format."""
    named = wanted.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise FieldInvalid("response_format", "json_schema.schema must be a JSON Schema object")
    try:
        text = orjson.dumps(schema)
    except orjson.JSONEncodeError:  # it writes fewer levels than it reads
        raise FieldInvalid("response_format", "the schema is nested too deep") from None
    if len(text) > MAX_SCHEMA_BYTES:
        raise FieldInvalid("response_format", f"the schema must be at most {MAX_SCHEMA_BYTES} bytes")
    check_counted_properties(schema)
    return text.decode(), False


def check_counted_properties(schema: Any) -> None:
    """Refuse objects that name many properties and bound their number: each property makes a rule for each number."""
    rules = 0
    left: list[Any] = [schema]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            named = node.get("properties")
            if isinstance(named, dict) and (node.get("minProperties") or "maxProperties" in node):
                rules += len(named) ** 2
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)
    if rules > MAX_COUNTED_PROPERTIES**2:
        raise FieldInvalid(
            "response_format",
            f"minProperties and maxProperties may stand beside at most {MAX_COUNTED_PROPERTIES} properties, "
            "beside fewer where several objects have them",
        )


FORMATS: Mapping[str, Callable[[Mapping[str, Any]], tuple[str | None, bool]]] = {
    "text": lambda _: (None, False),
    "json_object": lambda _: (None, True),
    "json_schema": schema_of,
}


def json_of(name: str, text: str) -> Any:
    """The value a JSON text stands for."""
    try:
        return orjson.loads(text)
    except ValueError:
        raise FieldInvalid(name, "must be valid JSON") from None
