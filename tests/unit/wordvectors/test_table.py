from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wordvectors import WordVectors


@pytest.fixture(scope="module")
def table() -> WordVectors:
    return WordVectors.packaged()


@given(st.text())
def test_any_text_has_a_vector_of_length_one_or_of_zeros(text: str) -> None:
    vector = WordVectors.packaged().embed(text)
    assert vector.shape == (WordVectors.packaged().dimensions,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4) or not vector.any()


@pytest.mark.parametrize(
    ("one", "other", "unrelated"),
    [
        ("How do I reset my password?", "I forgot the password, how to change it", "Best pasta recipe for two"),
        ("Как сбросить пароль?", "забыл пароль, как его поменять", "Рецепт борща на двоих"),
        ("Refund for a cancelled flight", "My flight was cancelled: do I get money back?", "Define photosynthesis"),
        ("Возврат денег за отменённый рейс", "рейс отменили, вернут ли деньги", "Что такое фотосинтез"),
    ],
)
def test_texts_on_one_matter_are_nearer_than_others(table: WordVectors, one: str, other: str, unrelated: str) -> None:
    same, apart = (float(table.embed(one) @ table.embed(text)) for text in (other, unrelated))
    assert same > 0.4 > 0.3 > apart


@pytest.mark.parametrize(
    ("one", "other"), [("пароль", "паролями"), ("ёж", "еж"), ("BANK", "bank"), ("walk", "walking")]
)
def test_forms_of_one_word_have_one_vector(table: WordVectors, one: str, other: str) -> None:
    assert float(table.embed(one) @ table.embed(other)) == pytest.approx(1, abs=1e-3)


def test_common_words_weigh_less_than_rare_ones(table: WordVectors) -> None:
    assert table.weight("the") < table.weight("bank") < table.weight("photosynthesis")
    assert table.weight("и") < table.weight("банк") <= table.weight("холодильник")


def test_many_texts_at_once_are_each_as_alone(table: WordVectors) -> None:
    texts = ["Convert 10 miles", "", "Перевести 10 миль"]
    assert np.allclose(table.embed_all(texts), [table.embed(text) for text in texts], atol=1e-6)
    assert table.embed_all([]).shape == (0, table.dimensions)


def test_a_very_long_text_is_read_from_its_beginning(table: WordVectors) -> None:
    assert float(table.embed("bank " * 100_000) @ table.embed("bank")) == pytest.approx(1, abs=1e-3)
