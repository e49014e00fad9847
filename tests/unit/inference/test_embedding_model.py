import asyncio

import pytest

from meshkit.errors import RateLimited
from services.inference.embedding import CONTEXT_TOKENS, Embedder


@pytest.fixture(scope="module")
def embedder():
    embedder = Embedder(threads=2, max_waiting=4)
    yield embedder
    embedder.close()


def likeness(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_vectors_have_length_one_and_the_order_of_the_texts(embedder):
    texts = ["the cat sleeps", "stock prices fell", "кошка спит"]
    together = await embedder.embed(texts, as_query=True)
    alone = [(await embedder.embed([text], as_query=True)).vectors[0] for text in texts]
    assert [list(vector) for vector in together.vectors] == [list(vector) for vector in alone]
    assert [len(vector) for vector in together.vectors] == [embedder.dimensions] * 3
    assert [likeness(vector, vector) for vector in together.vectors] == pytest.approx([1, 1, 1], abs=1e-4)


async def test_the_same_thing_in_two_languages_is_closer_than_another_thing(embedder):
    texts = ["the cat sleeps on the sofa", "кошка спит на диване", "stock prices fell sharply on Monday"]
    english, russian, other = (await embedder.embed(texts, as_query=True)).vectors
    assert likeness(english, russian) > likeness(english, other) + 0.05


async def test_questions_and_documents_are_embedded_differently(embedder):
    asked = await embedder.embed(["the cat sleeps"], as_query=True)
    found = await embedder.embed(["the cat sleeps"], as_query=False)
    assert list(asked.vectors[0]) != list(found.vectors[0])


async def test_tokens_are_counted_with_prefix_and_marks(embedder):
    short = await embedder.embed(["cat"], as_query=True)
    longer = await embedder.embed(["cat and dog", "cat"], as_query=True)
    assert 3 < short.input_tokens < longer.input_tokens


async def test_of_a_long_text_only_the_beginning_is_read(embedder):
    beginning = "cats and dogs " * 200
    one, other = [(await embedder.embed([beginning + end], as_query=True)) for end in ("one", "other " * 500)]
    assert one.input_tokens == other.input_tokens <= CONTEXT_TOKENS
    assert list(one.vectors[0]) == list(other.vectors[0])


async def test_a_nul_character_does_not_end_the_text(embedder):
    whole, cut, with_nul = (await embedder.embed(["good night", "good", "good\0night"], as_query=True)).vectors
    assert list(with_nul) == list(whole)
    assert list(with_nul) != list(cut)


async def test_too_many_calls_at_once_are_refused(embedder):
    calls = [embedder.embed(["a text"], as_query=True) for _ in range(5)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(RateLimited) == 1
