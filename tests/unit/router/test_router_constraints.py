"""Who may and can answer."""

from __future__ import annotations

import pytest

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import DataClass, Region, Residency
from meshkit.errors import ContextTooLong, FieldInvalid, ModelNotAllowed, RegionNotAllowed
from services.router.constraints import eligible, forbidden
from services.router.deployment import Capability
from services.router.needs import Needs, chat_needs

PLAIN = Needs(frozenset(), 10, 0)


@pytest.mark.parametrize(
    ("residency", "allowed"),
    [
        (Residency.GLOBAL, {Region.LOCAL, Region.RUSSIA, Region.EU, Region.GLOBAL}),
        (Residency.RUSSIA, {Region.LOCAL, Region.RUSSIA}),
        (Residency.EU, {Region.LOCAL, Region.EU}),
    ],
)
def test_residency_keeps_data_in_its_regions(deployment, limits, residency, allowed):
    kept = {
        region
        for region in Region
        if forbidden(deployment("d", region=region), limits("d", residency=residency)) is None
    }
    assert kept == allowed


def test_a_deployment_nobody_allowed_is_out(deployment, limits):
    with pytest.raises(ModelNotAllowed, match="cloud/m is not among the deployments allowed"):
        eligible("m", [deployment()], limits(), PLAIN)


def test_a_deployment_that_may_not_hold_the_data_is_out(deployment, limits):
    cloud = deployment("cloud", data_classes=["public", "internal"])
    ours = deployment("ours")
    sensitive = limits("cloud", "ours", data_class=DataClass.SENSITIVE)
    assert eligible("m", [cloud, ours], sensitive, PLAIN) == [ours]


def test_the_error_names_what_excluded_each(deployment, limits):
    serving = [deployment("far", region="global"), deployment("near", region="eu", data_classes=["public"])]
    with pytest.raises(RegionNotAllowed) as caught:
        eligible("m", serving, limits("far", "near", residency=Residency.RUSSIA), PLAIN)
    assert "far processes data in region global" in str(caught.value)
    assert "near processes data in region eu" in str(caught.value)
    assert caught.value.metadata == {"model": "m", "data_class": "public", "residency": "russia"}


def test_the_type_of_the_error_is_that_of_the_one_which_came_furthest(deployment, limits):
    serving = [deployment("far"), deployment("near", region="russia", context_tokens=5)]
    with pytest.raises(ContextTooLong) as caught:
        eligible("m", serving, limits("far", "near", residency=Residency.RUSSIA), Needs(frozenset(), 100, 50))
    assert caught.value.metadata == {"model": "m", "limit": "5", "asked": "125"}
    assert "far processes data in region global" in str(caught.value)


@pytest.mark.parametrize(
    ("capability", "field"),
    [(Capability.TOOLS, "tools"), (Capability.JSON_SCHEMA, "response_format"), (Capability.VISION, "messages")],
)
def test_a_missing_capability_names_the_field_that_asks_for_it(deployment, limits, capability, field):
    with pytest.raises(FieldInvalid) as caught:
        eligible("m", [deployment(capabilities=[])], limits("cloud/m"), Needs(frozenset({capability}), 1, 0))
    assert caught.value.metadata == {"field": field}


def test_needs_are_read_off_the_prompt():
    prompt = chat_pb2.ChatPrompt(
        messages=[
            chat_pb2.ChatMessage(
                role=chat_pb2.ROLE_USER,
                content=[
                    chat_pb2.ContentPart(text="What is this?"),
                    chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url="data:image/png;base64," + "A" * 9000)),
                ],
            )
        ],
        options=chat_pb2.GenerationOptions(
            tools_json=['{"type":"function"}'],
            response_format_json='{"type":"json_schema"}',
            max_output_tokens=7,
        ),
    )
    needs = chat_needs(prompt)
    assert needs.capabilities == set(Capability)
    assert needs.max_output_tokens == 7
    assert needs.input_tokens < 600


def test_a_text_response_format_needs_nothing():
    options = chat_pb2.GenerationOptions(response_format_json='{"type":"text"}')
    assert chat_needs(chat_pb2.ChatPrompt(options=options)).capabilities == frozenset()


def test_tools_that_may_not_be_called_need_nothing():
    options = chat_pb2.GenerationOptions(tools_json=["{}"], tool_choice_json='"none"')
    assert chat_needs(chat_pb2.ChatPrompt(options=options)).capabilities == frozenset()


def test_what_may_just_fit_is_left_to_the_provider(deployment, limits):
    prose = Needs(frozenset(), 1300, 0)
    assert eligible("m", [deployment(context_tokens=1000)], limits("cloud/m"), prose)
