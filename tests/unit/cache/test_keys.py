from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmmesh.chat.v1 import chat_pb2
from services.cache.keys import Question, exact_key, key_scope, question_of
from tests.support.cache_calls import message, prompt

OPTIONS = chat_pb2.GenerationOptions


def key(asked: chat_pb2.ChatPrompt, tenant: str = "acme", policy: str = "p1") -> str:
    return exact_key(tenant, asked, policy)


def question(asked: chat_pb2.ChatPrompt, policy: str = "p1") -> Question:
    found = question_of(asked, policy)
    assert found is not None
    return found


CHANGES = {
    "model": prompt(model="large"),
    "text": prompt("How tall is Everest"),
    "role": prompt(messages=[message("How tall is Everest?", chat_pb2.ROLE_SYSTEM)]),
    "name": prompt(messages=[chat_pb2.ChatMessage(role=3, name="bob", content=prompt().messages[0].content)]),
    "zero temperature": prompt(options=OPTIONS(temperature=0)),
    "seed": prompt(options=OPTIONS(seed=1)),
    "stop": prompt(options=OPTIONS(stop=["."])),
    "top_p": prompt(options=OPTIONS(top_p=0.5)),
    "tools": prompt(options=OPTIONS(tools_json=["{}"])),
    "tool choice": prompt(options=OPTIONS(tool_choice_json='"none"')),
    "format": prompt(options=OPTIONS(response_format_json="{}")),
    "extra": prompt(options=OPTIONS(extra_json={"n": "2"})),
    "metadata": prompt(options=OPTIONS(extra_json={"metadata": '{"team":"red"}'})),
    "metadata that are none": prompt(options=OPTIONS(extra_json={"metadata": '["subject"]'})),
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=list(CHANGES))
def test_whatever_changes_the_answer_changes_the_key(changed: chat_pb2.ChatPrompt) -> None:
    assert key(changed) != key(prompt())


def test_tenant_and_policy_change_the_key() -> None:
    assert len({key(prompt()), key(prompt(), tenant="rival"), key(prompt(), policy="p2")}) == 3


NO_PART = {
    "no options": OPTIONS(),
    "user": OPTIONS(user="bob"),
    "person": OPTIONS(extra_json={"metadata": '{"subject":"bob"}'}),
    **{
        name: OPTIONS(extra_json={name: said})
        for name, said in (
            ("safety_identifier", '"bob"'),
            ("prompt_cache_key", '"bob"'),
            ("prompt_cache_retention", '"24h"'),
            ("store", "true"),
        )
    },
}


@pytest.mark.parametrize("options", NO_PART.values(), ids=list(NO_PART))
def test_who_asks_and_what_a_provider_keeps_do_not_change_the_key(options: chat_pb2.GenerationOptions) -> None:
    assert key(prompt(options=options)) == key(prompt())
    assert question(prompt(options=options)) == question(prompt())


def test_of_metadata_only_the_person_does_not_change_the_key() -> None:
    def told(metadata: str) -> str:
        return key(prompt(options=OPTIONS(seed=1, extra_json={"metadata": metadata})))

    assert told('{"team":"red","subject":"bob"}') == told('{"team":"red"}')
    assert told('{"team":"red","subject":"bob"}') != told('{"team":"blue","subject":"bob"}')


def test_making_a_key_leaves_the_prompt_alone() -> None:
    def asked_by_bob() -> chat_pb2.ChatPrompt:
        extra = {"metadata": '{"subject":"bob"}', "store": "true"}
        return prompt(options=OPTIONS(user="bob", seed=1, extra_json=extra))

    asked = asked_by_bob()
    key(asked)
    question_of(asked, "p1")
    assert asked == asked_by_bob()


def test_the_order_in_which_extra_fields_were_set_does_not_matter() -> None:
    names = [f"field{n}" for n in range(20)]
    forwards = prompt(options=OPTIONS(extra_json=dict.fromkeys(names, "1")))
    backwards = prompt(options=OPTIONS(extra_json=dict.fromkeys(reversed(names), "1")))
    assert key(forwards) == key(backwards)


@given(st.text(), st.text(), st.text(), st.text())
def test_no_two_tenants_or_models_share_a_scope(tenant: str, model: str, other_tenant: str, other_model: str) -> None:
    alike = (tenant, model) == (other_tenant, other_model)
    assert (key_scope(tenant, model) == key_scope(other_tenant, other_model)) == alike


@given(st.text(min_size=1))
def test_a_scope_holds_nothing_special_to_redis_patterns(name: str) -> None:
    assert not set(key_scope(name, name)) & set("*?[]^\\")


def test_only_the_wording_of_the_last_turn_may_differ() -> None:
    first, second = question(prompt("How tall is Everest?")), question(prompt("What is Everest's height?"))
    assert first.context == second.context
    assert (first.text, second.text) == ("How tall is Everest?", "What is Everest's height?")


@pytest.mark.parametrize(
    "other",
    [
        prompt(system="Be brief."),
        prompt(model="large"),
        prompt(options=OPTIONS(temperature=1)),
        prompt(messages=[message("Hi"), message("Hello", chat_pb2.ROLE_ASSISTANT), message("How tall is Everest?")]),
    ],
)
def test_everything_else_makes_another_context(other: chat_pb2.ChatPrompt) -> None:
    assert question(other).context != question(prompt()).context


def test_earlier_turns_belong_to_the_context() -> None:
    def talk(earlier: str) -> chat_pb2.ChatPrompt:
        return prompt(messages=[message(earlier), message("Yes", chat_pb2.ROLE_ASSISTANT), message("And then?")])

    assert question(talk("Is it tall?")).context != question(talk("Is it old?")).context


def test_an_image_beside_the_text_belongs_to_the_context() -> None:
    def seen(url: str) -> chat_pb2.ChatPrompt:
        picture = chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url=url))
        text = chat_pb2.ContentPart(text="What is this?")
        return prompt(messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=[text, picture])])

    assert question(seen("https://a")).context != question(seen("https://b")).context


def test_where_texts_stand_among_images_belongs_to_the_context() -> None:
    first, second = (chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url=f"data:image/png,{n}")) for n in "12")
    texts = [chat_pb2.ContentPart(text=text) for text in ("Is this", "as tall as that?")]

    def shown(*parts: chat_pb2.ContentPart) -> chat_pb2.ChatPrompt:
        return prompt(messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=parts)])

    among, behind = question(shown(texts[0], first, texts[1], second)), question(shown(*texts, first, second))
    assert among.text == behind.text
    assert among.context != behind.context
    assert question(shown(*texts)).context == question(prompt()).context


@pytest.mark.parametrize(
    "asked",
    [
        prompt(messages=[message("42", chat_pb2.ROLE_TOOL)]),
        prompt(messages=[message("I am", chat_pb2.ROLE_ASSISTANT)]),
        prompt("  "),
    ],
)
def test_a_turn_that_is_no_users_text_is_no_question(asked: chat_pb2.ChatPrompt) -> None:
    assert question_of(asked, "p1") is None
