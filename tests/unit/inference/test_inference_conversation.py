import pytest

from llmmesh.chat.v1 import chat_pb2
from llmmesh.chat.v1.chat_pb2 import ChatMessage, ContentPart, ImageUrl, ToolCall
from meshkit.errors import FieldInvalid
from services.inference.conversation import turns_of


def said(role, *texts, **fields):
    return ChatMessage(role=role, content=[ContentPart(text=text) for text in texts], **fields)


def refused_field(*messages):
    with pytest.raises(FieldInvalid) as caught:
        turns_of(messages)
    return caught.value.metadata["field"]


def test_roles_get_the_names_templates_know():
    messages = [
        said(chat_pb2.ROLE_DEVELOPER, "be brief"),
        said(chat_pb2.ROLE_USER, "hello"),
        said(chat_pb2.ROLE_ASSISTANT, "hi"),
    ]
    assert turns_of(messages) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
    ]


def test_parts_of_a_message_stand_on_lines_of_their_own():
    assert turns_of([said(chat_pb2.ROLE_USER, "one", "two")]) == [{"role": "user", "content": "one\ntwo"}]


def test_earlier_tool_calls_and_their_results_are_shown_to_the_model():
    call = ToolCall(id="c1", name="weather", arguments='{"city":"Kazan"}')
    messages = [
        ChatMessage(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[call]),
        said(chat_pb2.ROLE_TOOL, "sunny", tool_call_id="c1", name="weather"),
    ]
    function = {"name": "weather", "arguments": {"city": "Kazan"}}
    assert turns_of(messages) == [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "content": "sunny", "name": "weather", "tool_call_id": "c1"},
    ]


def test_no_messages_are_refused():
    assert refused_field() == "messages"


def test_a_message_without_a_role_is_refused_by_its_place():
    assert refused_field(said(chat_pb2.ROLE_USER, "hi"), said(chat_pb2.ROLE_UNSPECIFIED, "x")) == "messages[1].role"


@pytest.mark.parametrize(
    "part", [ContentPart(image_url=ImageUrl(url="https://example.com/cat.png")), ContentPart(raw_json="{}")]
)
def test_anything_but_text_is_refused(part):
    assert refused_field(ChatMessage(role=chat_pb2.ROLE_USER, content=[part])) == "messages[0].content"


@pytest.mark.parametrize("arguments", ["", "{}", "null"])
def test_a_tool_call_may_have_no_arguments(arguments):
    calls = [ToolCall(id="c", name="n", arguments=arguments)]
    (turn,) = turns_of([ChatMessage(role=chat_pb2.ROLE_ASSISTANT, tool_calls=calls)])
    assert turn["tool_calls"][0]["function"] == {"name": "n", "arguments": {}}


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "3"])
def test_tool_calls_whose_arguments_are_no_object_are_refused(arguments):
    broken = ChatMessage(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[ToolCall(id="c", name="n", arguments=arguments)])
    assert refused_field(broken) == "messages[0].tool_calls"
