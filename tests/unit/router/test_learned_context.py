"""What a prompt is like."""

from __future__ import annotations

import pytest

from llmmesh.chat.v1 import chat_pb2
from meshkit.egress import DataClass
from services.router.learned.context import FEATURES, Asked, context_of, indices, names
from services.router.needs import chat_needs


def said(*texts, roles=None, **options):
    roles = roles or [chat_pb2.ROLE_USER] * len(texts)
    return chat_pb2.ChatPrompt(
        model="m",
        messages=[
            chat_pb2.ChatMessage(role=role, content=[chat_pb2.ContentPart(text=text)])
            for role, text in zip(roles, texts, strict=True)
        ],
        options=chat_pb2.GenerationOptions(**options),
    )


def told(prompt, tier="none"):
    return names(context_of(prompt, Asked(chat_needs(prompt), DataClass.INTERNAL, tier)))


@pytest.mark.parametrize(
    ("text", "language", "kind"),
    [
        ("What is the capital of France?", "english", "question"),
        ("Сколько стоит доставка в Казань?", "russian", "question"),
        ("Напиши функцию на python, которая сортирует список", "russian", "code"),
        ("Explain this: ```for (;;) {}```", "english", "code"),
        ("Реши уравнение 2*x + 3 = 7", "russian", "maths"),
        ("What is the probability of two sixes?", "english", "maths"),
        ("Напиши письмо коллеге о переносе встречи", "russian", "other"),
        ("请告诉我今天的天气", "other", "other"),
        ("", "other", "other"),
        ("12345 67890", "other", "other"),
    ],
)
def test_language_and_kind_are_told_by_looks(text, language, kind):
    assert {f"language:{language}", f"kind:{kind}"} <= set(told(said(text)))


def test_length_tools_turn_data_class_and_tier_are_features():
    prompt = said("Hi", "Hello!", "x " * 3000, roles=[chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT, chat_pb2.ROLE_USER])
    prompt.options.tools_json.append('{"type":"function"}')
    expected = {"length:long", "turn:later", "needs:tools", "data:internal", "tier:pro", "always"}
    assert expected <= set(told(prompt, "pro"))
    assert {"length:short", "turn:first", "tier:none"} <= set(told(said("Hi")))


def test_only_the_last_words_of_the_user_are_read():
    roles = [chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT, chat_pb2.ROLE_USER]
    assert "language:russian" in told(said("Write python", "def f(): ...", "Спасибо, а теперь письмо", roles=roles))


def test_a_long_text_is_known_by_its_ends():
    assert "kind:code" in told(said("word " * 5000 + "and now in rust"))


def test_a_context_reads_back_from_its_names_without_those_that_are_gone():
    assert indices(["kind:code", "kind:poetry", "always"]) == (0, FEATURES.index("kind:code"))
