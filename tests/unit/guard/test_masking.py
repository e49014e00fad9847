"""What a provider gets instead of personal data: nothing of it, and JSON that is still JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmmesh.chat.v1 import chat_pb2
from services.guard.masking import Placeholders, masked
from services.guard.names import NameScanner
from services.guard.policy import Policy
from services.guard.prompts import masked_prompt, passage
from services.guard.verdict import DataClass, Direction, Finding, merge

VALUES = {
    "EMAIL": "ivan.petrov@example.ru",
    "PHONE": "+7 (916) 123-45-67",
    "CARD": "4111 1111 1111 1111",
    "SNILS": "112-233-445 95",
    "IBAN": "DE89370400440532013000",
    "API_KEY": "sk-proj-9fK2mZ0qLx7Tb3VwYc5N1aRd",
}
many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
words = st.text(st.sampled_from('абвxyz \n\t"\\{}[]:,é漢😀№-'), max_size=20)
values = st.sampled_from(list(VALUES.values()))


def in_words(joint: str) -> st.SearchStrategy[str]:
    return st.tuples(words, values, words).map(joint.join)


@pytest.fixture(scope="module")
def names() -> NameScanner:
    return NameScanner()


def said(text: str, **more: Any) -> chat_pb2.ChatMessage:
    return chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)], **more)


def findings(policy: Policy, messages: list[chat_pb2.ChatMessage], names: NameScanner | None = None) -> list[Finding]:
    found = []
    for index, message in enumerate(messages):
        text = passage(message, index).text
        every = [*policy.scanners[Direction.INPUT].scan(text), *(names.scan(text) if names else ())]
        found += [replace(each, message_index=index) for each in every]
    return list(merge(found, {}).findings)


def hidden(policy: Policy, text: str) -> tuple[str, dict[str, str]]:
    messages = [said(text)]
    copies, originals, _ = masked_prompt(messages, findings(policy, messages))
    return copies[0].content[0].text, originals


def restored(text: str, originals: dict[str, str]) -> str:
    for placeholder, original in originals.items():
        text = text.replace(placeholder, original)
    return text


@pytest.mark.parametrize(("kind", "value"), VALUES.items(), ids=VALUES.keys())
def test_each_kind_has_a_placeholder_that_says_what_it_is(policy: Policy, kind: str, value: str) -> None:
    assert hidden(policy, f"See: {value}, please") == (f"See: [{kind}_1], please", {f"[{kind}_1]": value})


@many
@given(st.lists(st.tuples(words, values), min_size=1, max_size=4), words)
def test_nothing_hidden_is_sent_and_all_of_it_comes_back(
    policy: Policy, pieces: list[tuple[str, str]], end: str
) -> None:
    text = "".join(f"{before} {value} " for before, value in pieces) + end
    sent, originals = hidden(policy, text)
    assert restored(sent, originals) == text
    assert not any(value in sent for value in originals.values())
    assert not [each for each in findings(policy, [said(sent)]) if each.data_class >= DataClass.CONFIDENTIAL]


@many
@given(
    st.dictionaries(
        st.sampled_from("email phone card passport note ключ".split()),  # noqa: SIM905
        st.one_of(values, in_words(" "), in_words("\n"), st.just(4111111111111111), st.booleans()),
        min_size=1,
    ),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_json_stays_json_of_the_same_shape(
    policy: Policy, document: dict[str, Any], escapes: bool, indent: int | None
) -> None:
    text = json.dumps(document, ensure_ascii=escapes, indent=indent)
    sent, originals = hidden(policy, text)
    read = json.loads(sent)
    assert list(read) == list(document)
    for key, value in document.items():
        assert restored(str(read[key]), originals) == str(value)
    assert "4111" not in sent


@pytest.mark.parametrize(
    "document",
    [{"улица": "Ленина", "дом": 5, "квартира": 12}, {"street": "10 Downing Street", "apartment": "4"}],
    ids=["ru", "en"],
)
def test_of_a_find_over_several_values_all_are_hidden(policy: Policy, document: dict[str, Any]) -> None:
    sent, originals = hidden(policy, json.dumps(document, ensure_ascii=False))
    assert {key: restored(str(value), originals) for key, value in json.loads(sent).items()} == {
        key: str(value) for key, value in document.items()
    }
    assert not [value for value in json.loads(sent).values() if "[" not in str(value)]


def test_one_value_has_one_placeholder_in_the_whole_prompt(policy: Policy) -> None:
    messages = [said("I am ivan@example.ru"), said("write to ivan@example.ru or olga@example.ru")]
    copies, originals, data_class = masked_prompt(messages, findings(policy, messages))
    assert [copy.content[0].text for copy in copies] == ["I am [EMAIL_1]", "write to [EMAIL_1] or [EMAIL_2]"]
    assert originals == {"[EMAIL_1]": "ivan@example.ru", "[EMAIL_2]": "olga@example.ru"}
    assert data_class is DataClass.PUBLIC


def test_a_placeholder_that_stands_there_already_is_not_used(policy: Policy) -> None:
    sent, originals = hidden(policy, "What is [EMAIL_1]? Write to ivan@example.ru")
    assert sent == "What is [EMAIL_1]? Write to [EMAIL_2]"
    assert list(originals) == ["[EMAIL_2]"]


def test_a_name_is_hidden_beside_other_personal_data_and_left_alone_otherwise(
    policy: Policy, names: NameScanner
) -> None:
    messages = [said("Кто такой Лев Толстой?"), said("Иван Петров, ivan@example.ru")]
    copies, originals, data_class = masked_prompt(messages, findings(policy, messages, names))
    assert copies[0] == messages[0]
    assert copies[1].content[0].text == "[NAME_1], [EMAIL_1]"
    assert originals["[NAME_1]"] == "Иван Петров"
    assert data_class is DataClass.INTERNAL


def test_of_a_list_of_names_all_are_hidden(policy: Policy, names: NameScanner) -> None:
    messages = [said("John Smith\nMary Jones\nRobert Brown\njohn@example.com")]
    copies, _, _ = masked_prompt(messages, findings(policy, messages, names))
    assert copies[0].content[0].text == "[NAME_1]\n[NAME_2]\n[NAME_3]\n[EMAIL_1]"


def test_tool_calls_and_raw_parts_are_hidden_too(policy: Policy) -> None:
    call = chat_pb2.ToolCall(id="1", name="send", arguments='{"to": "ivan@example.ru", "card": 4111111111111111}')
    raw = chat_pb2.ContentPart(raw_json='{"type":"file","note":"\\nivan@example.ru"}')
    messages = [said("Hello", tool_calls=[call]), chat_pb2.ChatMessage(content=[raw])]
    copies, _, _ = masked_prompt(messages, findings(policy, messages))
    assert copies[0].tool_calls[0].arguments == '{"to": "[EMAIL_1]", "card": "[CARD_1]"}'
    assert json.loads(copies[1].content[0].raw_json)["note"].endswith("[EMAIL_1]")
    assert messages[0].tool_calls[0].arguments == call.arguments


def test_what_no_placeholder_hides_keeps_its_class(policy: Policy) -> None:
    messages = [said("Строго конфиденциально: ivan@example.ru")]
    assert masked_prompt(messages, findings(policy, messages))[2] is DataClass.CONFIDENTIAL


def test_more_than_can_be_named_is_not_called_hidden(policy: Policy) -> None:
    messages = [said(" ".join(f"user{number}@example.ru" for number in range(150)))]
    assert masked_prompt(messages, findings(policy, messages))[2] is DataClass.SENSITIVE


def test_a_secret_is_hidden_to_its_end_although_its_beginning_gives_it_away(policy: Policy) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hQ9abcdef\nABCD0123+/==\n-----END PRIVATE KEY-----"
    assert hidden(policy, f"my {key} thanks")[0] == "my [PRIVATE_KEY_1] thanks"
    sent, _ = hidden(policy, json.dumps({"key": key, "next": 1}))
    assert json.loads(sent) == {"key": "[PRIVATE_KEY_1]", "next": 1}


def test_overlapping_finds_become_one(policy: Policy) -> None:
    (email,) = findings(policy, [said("a@bcd.ru")])
    found = [replace(email, start=start, end=end) for start, end in ((0, 5), (3, 8))]
    assert masked("a@bcd.ru and", found, Placeholders([])) == "[EMAIL_1] and"
