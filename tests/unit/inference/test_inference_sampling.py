import json

import pytest

from llmmesh.chat.v1.chat_pb2 import GenerationOptions
from meshkit.errors import FieldInvalid
from services.inference.sampling import Sampling, sampling_of


def refused_field(**options):
    with pytest.raises(FieldInvalid) as caught:
        sampling_of(GenerationOptions(**options))
    return caught.value.metadata["field"]


def test_without_options_everything_is_left_to_the_model():
    assert sampling_of(GenerationOptions()) == Sampling()


def test_zero_is_not_the_same_as_unset():
    sampling = sampling_of(GenerationOptions(temperature=0, seed=0, presence_penalty=0))
    assert sampling.parameters == {"temperature": 0, "seed": 0, "presence_penalty": 0}


def test_every_option_reaches_the_engine():
    options = GenerationOptions(
        temperature=0.5, top_p=0.9, seed=7, presence_penalty=1, frequency_penalty=-1, max_output_tokens=5, stop=["END"]
    )
    assert sampling_of(options) == Sampling(
        max_output_tokens=5,
        stop=("END",),
        parameters={
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 7,
            "presence_penalty": 1,
            "frequency_penalty": -1,
        },
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0),
        ("top_p", 1.1),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -2.5),
        ("max_output_tokens", 0),
        ("max_output_tokens", -1),
        ("stop", [""]),
        ("stop", ["x"] * 17),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(field, value):
    assert refused_field(**{field: value}) == field


def test_fields_the_engine_understands_are_read_from_the_rest_of_the_request():
    extra = {
        "top_k": "20",
        "min_p": "0.1",
        "repetition_penalty": "1.1",
        "min_tokens": "3",
        "ignore_eos": "true",
        "logit_bias": '{"1": 2}',
    }
    assert sampling_of(GenerationOptions(extra_json=extra)).parameters == {
        "top_k": 20,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "min_tokens": 3,
        "ignore_eos": True,
    }


def test_null_means_unset():
    assert sampling_of(GenerationOptions(extra_json={"top_k": "null", "ignore_eos": "null"})) == Sampling()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_k", "1.5"),
        ("top_k", "true"),
        ("top_k", "-2"),
        ("top_k", '"many"'),
        ("top_k", "{"),
        ("min_p", "2"),
        ("repetition_penalty", "0"),
        ("repetition_penalty", "1e-50"),
        ("repetition_penalty", "1e39"),
        ("min_tokens", "-1"),
        ("ignore_eos", "1"),
    ],
)
def test_a_further_field_of_the_wrong_kind_is_refused_by_name(field, value):
    assert refused_field(extra_json={field: value}) == field


def test_a_json_schema_is_kept_as_json():
    wanted = '{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}'
    assert sampling_of(GenerationOptions(response_format_json=wanted)).json_schema == '{"type":"object"}'


def test_any_json_object_can_be_asked_for():
    assert sampling_of(GenerationOptions(response_format_json='{"type":"json_object"}')).json_object


def test_plain_text_is_the_same_as_no_format():
    assert sampling_of(GenerationOptions(response_format_json='{"type":"text"}')) == Sampling()


@pytest.mark.parametrize(
    "wanted",
    [
        "{",
        "3",
        '{"type":"xml"}',
        '{"type":["text"]}',
        '{"type":"json_schema"}',
        '{"type":"json_schema","json_schema":{"schema":"no object"}}',
        pytest.param(
            '{"type":"json_schema","json_schema":{"schema":' + '{"items":' * 300 + "{}" + "}" * 300 + "}}",
            id="nested too deep",
        ),
    ],
)
def test_a_response_format_that_makes_no_sense_is_refused(wanted):
    assert refused_field(response_format_json=wanted) == "response_format"


def test_a_huge_schema_is_refused():
    schema = '{"description":"' + "x" * 70_000 + '"}'
    wanted = '{"type":"json_schema","json_schema":{"schema":' + schema + "}}"
    assert refused_field(response_format_json=wanted) == "response_format"


def with_schema(schema):
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    return {"response_format_json": json.dumps(wanted)}


def naming(properties, **counted):
    return {"type": "object", "properties": {f"p{number}": {} for number in range(properties)}, **counted}


@pytest.mark.parametrize(
    "schema",
    [
        naming(101, minProperties=1),
        naming(101, maxProperties=50),
        {"type": "object", "properties": {"inside": naming(101, maxProperties=50)}},
        {"anyOf": [naming(75, maxProperties=50), naming(75, minProperties=1)]},
    ],
)
def test_a_schema_that_counts_many_named_properties_is_refused(schema):
    assert refused_field(**with_schema(schema)) == "response_format"


@pytest.mark.parametrize(
    "schema",
    [
        naming(100, minProperties=1, maxProperties=50),
        naming(1000),
        naming(1000, minProperties=0),
        {"type": "object", "maxProperties": 1000},
    ],
)
def test_few_properties_may_be_counted_and_many_named(schema):
    assert json.loads(sampling_of(GenerationOptions(**with_schema(schema))).json_schema) == schema


def test_tools_are_refused_because_no_model_here_calls_them():
    assert refused_field(tools_json=['{"type":"function"}']) == "tools"


def test_tools_that_must_not_be_called_do_no_harm():
    assert sampling_of(GenerationOptions(tools_json=['{"type":"function"}'], tool_choice_json='"none"')) == Sampling()
