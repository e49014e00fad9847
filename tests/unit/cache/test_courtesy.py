"""What is said out of courtesy is no part of the question."""

from __future__ import annotations

import pytest

from services.cache.verification.courtesy import without_courtesy

WRAPPED = {
    "Could you please tell me how to peel a mango?": "how to peel a mango?",
    "hi how do I peel a mango": "how do I peel a mango",
    "Привет, как чистить манго?": "как чистить манго?",
    "Hello! Is it raining?": "Is it raining?",
    "Hi there! Can you explain why leaves turn red?": "why leaves turn red?",
    "I'd like to know when the ferry leaves. Thanks in advance!": "when the ferry leaves.",
    "Where do swallows spend the winter, please?": "Where do swallows spend the winter?",
    "Здравствуйте! Подскажите, пожалуйста, где зимуют ласточки?": "где зимуют ласточки?",
    "Не могли бы вы сказать, в каком году построили маяк?": "в каком году построили маяк?",
    "Хотелось бы узнать, как чистить манго, заранее спасибо": "как чистить манго",
    "Подскажите, сколько идёт перевод на карту, спасибо": "сколько идёт перевод на карту",
}
BARE = [
    "Tell me about lighthouses",
    "Расскажи о маяках",
    "How do you say thank you in Finnish?",
    "How do you say thank you?",
    "How do you say please?",
    "Как будет по-английски спасибо?",
    "Как будет по-английски пожалуйста?",
    "Hello Kitty creator",
    "Good Morning America host",
    "Can you swim?",
    "Could you tell me if it rains?",
    "Hello!",
    "Спасибо",
    "Please translate 'good morning' into French",
    "Translate into French: a table for two, please",
    "How do you say no, thank you?",
    "Переведи на английский: до завтра, спасибо",
    "Привет! Как сказать по-английски: здравствуйте, спасибо?",
]


@pytest.mark.parametrize(("text", "question"), WRAPPED.items())
def test_a_question_is_freed_of_what_is_only_polite(text: str, question: str) -> None:
    assert without_courtesy(text) == question


@pytest.mark.parametrize("text", BARE)
def test_words_that_are_the_question_itself_stay(text: str) -> None:
    assert without_courtesy(text) == text


def test_long_texts_are_read_in_no_time() -> None:
    assert without_courtesy(text := "hi " * 5_000 + " ," * 5_000) in text
